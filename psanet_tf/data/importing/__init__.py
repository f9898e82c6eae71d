"""Makes a dataset in the custom layout of whatever labels people have: folders of masks, exports of annotation tools.

`detection` looks what a folder holds; the modules of the formats (`mask_folders`, `cvat`, `coco`, ...) give a `Source`:
images with labels, in keys of the source's own (values, colours, names); `rules` says which class each key is;
`writing` writes images, labels and a configuration.
"""

from psanet_tf.data.importing.importer import ImportOptions, import_dataset, inspect_source

__all__ = ["ImportOptions", "import_dataset", "inspect_source"]
