/* Labels an image with an exported model through TensorFlow's C API: what a server without Python does.
 *
 *   label_image MODEL_VERSION_FOLDER IMAGE.jpg LABELS.png [OP_LIBRARY.so]
 *
 * The model's signature `predict_bytes` decodes the image, labels it and encodes the labels inside the graph, so
 * that all there is to do here is to pass bytes. OP_LIBRARY is needed for models that were exported with
 * `--implementation custom` and call the op PsaMask.
 *
 * Build (TF = the folder of the Python package tensorflow; the Makefile beside this file does it):
 *   gcc -O2 -I $TF/include label_image.c signature.c -o label_image \
 *     -L $TF -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 -Wl,-rpath,$TF
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signature.h"
#include "tensorflow/c/c_api.h"

static void fail(const char* what, const char* why) {
  fprintf(stderr, "label_image: %s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static char* read_file(const char* path, size_t* length) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char* content = malloc(size > 0 ? (size_t)size : 1);
  if (size < 0 || content == NULL || fread(content, 1, (size_t)size, file) != (size_t)size) {
    fail(path, "cannot be read");
  }
  fclose(file);
  *length = (size_t)size;
  return content;
}

static void write_file(const char* path, const char* content, size_t length) {
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(content, 1, length, file) != length || fclose(file) != 0) {
    fail(path, "cannot be written");
  }
}

static void free_string(void* data, size_t length, void* argument) {
  (void)length;
  (void)argument;
  TF_StringDealloc(data);
  free(data);
}

/* A tensor of shape [1] that holds one string. */
static TF_Tensor* string_tensor(const char* content, size_t length) {
  TF_TString* string = malloc(sizeof *string);
  if (string == NULL) fail("image", "no memory");
  TF_StringInit(string);
  TF_StringCopy(string, content, length);
  const int64_t shape[] = {1};
  return TF_NewTensor(TF_STRING, shape, 1, string, sizeof *string, free_string, NULL);
}

/* The graph's tensor behind a name such as "predict_bytes_image_bytes:0". */
static TF_Output signature_tensor(TF_Graph* graph, const TF_Buffer* meta_graph, enum SignatureSide side,
                                  const char* key) {
  char name[512];
  if (!find_signature_tensor(meta_graph->data, meta_graph->length, "predict_bytes", side, key, name, sizeof name)) {
    fail(key, "is not in the model's signature predict_bytes");
  }
  TF_Output tensor = {NULL, 0};
  char* colon = strrchr(name, ':');
  if (colon != NULL) {
    *colon = '\0';
    tensor.index = atoi(colon + 1);
  }
  tensor.oper = TF_GraphOperationByName(graph, name);
  if (tensor.oper == NULL) fail(name, "is not in the model's graph");
  return tensor;
}

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    fprintf(stderr, "usage: label_image MODEL_VERSION_FOLDER IMAGE LABELS.png [OP_LIBRARY.so]\n");
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_Library* library = NULL;
  if (argc == 5) {
    library = TF_LoadLibrary(argv[4], status);
    check(status, argv[4]);
  }

  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Graph* graph = TF_NewGraph();
  TF_Buffer* meta_graph = TF_NewBuffer();
  const char* tags[] = {"serve"};
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, meta_graph, status);
  check(status, argv[1]);

  size_t length;
  char* image = read_file(argv[2], &length);
  TF_Output input = signature_tensor(graph, meta_graph, SIGNATURE_INPUTS, "image_bytes");
  TF_Output output = signature_tensor(graph, meta_graph, SIGNATURE_OUTPUTS, "label_bytes");
  TF_Tensor* image_bytes = string_tensor(image, length);
  TF_Tensor* label_bytes = NULL;
  TF_SessionRun(session, NULL, &input, &image_bytes, 1, &output, &label_bytes, 1, NULL, 0, NULL, status);
  check(status, argv[2]);

  const TF_TString* png = TF_TensorData(label_bytes);
  write_file(argv[3], TF_StringGetDataPointer(png), TF_StringGetSize(png));
  printf("%s: %zu bytes of labels\n", argv[3], TF_StringGetSize(png));

  TF_DeleteTensor(label_bytes);
  TF_DeleteTensor(image_bytes);
  free(image);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  if (library != NULL) TF_DeleteLibraryHandle(library);
  TF_DeleteStatus(status);
  return 0;
}
