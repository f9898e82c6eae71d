#!/bin/sh
# Adds a Bazel target to SUPPORTED_TENSORFLOW_OPS of TensorFlow Serving's model_servers/BUILD.
#
#   link_op.sh tensorflow_serving/model_servers/BUILD //tensorflow_serving/custom_ops/psa_mask:psa_mask
set -eu
build_file=$1
target=$2

# The list's first literal bracket that opens a list of targets:  SUPPORTED_TENSORFLOW_OPS = ... + [
if ! grep -q '^SUPPORTED_TENSORFLOW_OPS' "$build_file"; then
  echo "link_op.sh: $build_file has no SUPPORTED_TENSORFLOW_OPS" >&2
  exit 1
fi
if grep -qF "\"$target\"" "$build_file"; then
  exit 0
fi
# A second list behind the first one needs no knowledge of how the first is written.
awk -v target="$target" '
  /^SUPPORTED_TENSORFLOW_OPS/ { inside = 1 }
  { print }
  inside && /^\]\)?$/ { print "SUPPORTED_TENSORFLOW_OPS += [\"" target "\"]"; inside = 0; added = 1 }
  END { exit !added }
' "$build_file" > "$build_file.new" || {
  echo "link_op.sh: the end of SUPPORTED_TENSORFLOW_OPS was not found in $build_file" >&2
  rm -f "$build_file.new"
  exit 1
}
mv "$build_file.new" "$build_file"
