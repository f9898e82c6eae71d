/* Names of a signature's tensors, read from the MetaGraphDef of a SavedModel without a protobuf library. */

#ifndef PSANET_EXPORT_C_SIGNATURE_H_
#define PSANET_EXPORT_C_SIGNATURE_H_

#include <stddef.h>

enum SignatureSide { SIGNATURE_INPUTS = 1, SIGNATURE_OUTPUTS = 2 };

/* Writes the name of the graph's tensor (such as "predict_bytes_image_bytes:0") that a signature calls `key`.
 *
 * meta_graph, length: a serialized tensorflow.MetaGraphDef, as TF_LoadSessionFromSavedModel returns it.
 * signature:          such as "predict_bytes".
 * side:               whether `key` is one of its inputs or outputs.
 * name, capacity:     where the result goes.
 *
 * Returns 1, or 0 if there is no such signature or key, the message is damaged, or the name does not fit.
 */
int find_signature_tensor(const void* meta_graph, size_t length, const char* signature, enum SignatureSide side,
                          const char* key, char* name, size_t capacity);

#endif
