#include "signature.h"

#include <stdint.h>
#include <string.h>

/* A piece of a serialized message: https://protobuf.dev/programming-guides/encoding */
struct Bytes {
  const unsigned char* data;
  size_t length;
};

enum { VARINT = 0, FIXED64 = 1, LENGTH_DELIMITED = 2, FIXED32 = 5 };

/* Fields of tensorflow.MetaGraphDef, SignatureDef and TensorInfo, and of entries of maps. */
enum { META_GRAPH_SIGNATURE_DEF = 5, TENSOR_INFO_NAME = 1, ENTRY_KEY = 1, ENTRY_VALUE = 2 };

static int read_varint(struct Bytes* rest, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && rest->length > 0; shift += 7) {
    unsigned char byte = *rest->data++;
    rest->length--;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return 1;
  }
  return 0;
}

static int skip(struct Bytes* rest, size_t count) {
  if (count > rest->length) return 0;
  rest->data += count;
  rest->length -= count;
  return 1;
}

/* Takes the next field off `rest`. Only the content of length-delimited fields is of interest here. */
static int next_field(struct Bytes* rest, int* number, struct Bytes* content) {
  uint64_t tag, value;
  content->data = NULL;
  content->length = 0;
  if (!read_varint(rest, &tag)) return 0;
  *number = (int)(tag >> 3);
  switch (tag & 7) {
    case VARINT:
      return read_varint(rest, &value);
    case FIXED64:
      return skip(rest, 8);
    case FIXED32:
      return skip(rest, 4);
    case LENGTH_DELIMITED:
      if (!read_varint(rest, &value)) return 0;
      content->data = rest->data;
      content->length = (size_t)value;
      return skip(rest, (size_t)value);
    default:
      return 0;
  }
}

/* The first field of that number; 0 if there is none. */
static int find_field(struct Bytes message, int wanted, struct Bytes* content) {
  int number;
  while (message.length > 0 && next_field(&message, &number, content)) {
    if (number == wanted && content->data != NULL) return 1;
  }
  return 0;
}

/* The value under `key` in the map that is field `map` of `message`; 0 if there is none. */
static int find_in_map(struct Bytes message, int map, const char* key, struct Bytes* value) {
  int number;
  struct Bytes entry, entry_key;
  while (message.length > 0 && next_field(&message, &number, &entry)) {
    if (number == map && entry.data != NULL && find_field(entry, ENTRY_KEY, &entry_key) &&
        entry_key.length == strlen(key) && memcmp(entry_key.data, key, entry_key.length) == 0) {
      return find_field(entry, ENTRY_VALUE, value);
    }
  }
  return 0;
}

int find_signature_tensor(const void* meta_graph, size_t length, const char* signature, enum SignatureSide side,
                          const char* key, char* name, size_t capacity) {
  struct Bytes message = {meta_graph, length}, signature_def, tensor_info, found;
  if (!find_in_map(message, META_GRAPH_SIGNATURE_DEF, signature, &signature_def) ||
      !find_in_map(signature_def, (int)side, key, &tensor_info) ||
      !find_field(tensor_info, TENSOR_INFO_NAME, &found) || found.length >= capacity) {
    return 0;
  }
  memcpy(name, found.data, found.length);
  name[found.length] = '\0';
  return 1;
}
