"""`sum_of_products` against TensorFlow's convolution, and when it takes its place."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.ops.convolution import MIN_CHANNELS, MIN_PIXELS, products_serve, stock_convolutions, sum_of_products

# What Keras is in use makes no difference here.
pytestmark = [pytest.mark.any_keras, pytest.mark.optimized_graphs]

SIZES = [(1, 5, 7), (3, 4, 4), (2, 1, 6), (2, 5, 1), (1, 1, 1), (2, 2, 2)]
KERNEL = tf.TensorShape([3, 3, MIN_CHANNELS, 2])


def convolve(images, kernel):
    return tf.nn.conv2d(images, kernel, 1, "SAME")


def with_gradients(function, images, kernel, upstream):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        outputs = function(images, kernel)
    return [outputs, *tape.gradient(outputs, [images, kernel], upstream)]


def made(size, dtype="float64", channels=6, filters=4):
    generator = np.random.default_rng(0)
    shapes = [(*size, channels), (3, 3, channels, filters), (*size, filters)]
    return [tf.constant(generator.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-6)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_values_and_gradients_are_the_convolutions(dtype, tolerance, dynamic):
    signature = [
        tf.TensorSpec([None, None, None, 6], dtype),
        tf.TensorSpec([3, 3, 6, 4], dtype),
        tf.TensorSpec([None, None, None, 4], dtype),
    ]

    def products(*arguments):
        return with_gradients(sum_of_products, *arguments)

    function = tf.function(products, signature) if dynamic else products
    for size in SIZES:
        arguments = made(size, dtype)
        expected = with_gradients(convolve, *(tf.cast(argument, tf.float64) for argument in arguments))
        for got, wanted in zip(function(*arguments), expected, strict=True):
            assert got.dtype == dtype and got.shape == wanted.shape
            difference = np.abs(got.numpy() - wanted.numpy()).max()
            assert difference <= tolerance * np.abs(wanted).max(), (size, difference)


def test_gradient_of_the_gradient():
    def squared_gradient(function):
        images, kernel, _ = made((2, 3, 4))
        with tf.GradientTape() as outer:
            outer.watch([images, kernel])
            with tf.GradientTape() as inner:
                inner.watch([images, kernel])
                loss = tf.reduce_sum(tf.square(function(images, kernel)))
            gradients = inner.gradient(loss, [images, kernel])
            total = sum(tf.reduce_sum(tf.square(gradient)) for gradient in gradients)
        return outer.gradient(total, [images, kernel])

    for got, wanted in zip(squared_gradient(sum_of_products), squared_gradient(convolve), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11)


def test_an_empty_batch_and_the_static_shape():
    images, kernel, _ = made((0, 5, 7))
    assert sum_of_products(images, kernel).shape == (0, 5, 7, 4)
    spec = tf.TensorSpec([None, 5, None, 6], tf.float64)
    trace = tf.function(lambda images: sum_of_products(images, kernel)).get_concrete_function(spec)
    assert trace.output_shapes.as_list() == [None, 5, None, 4]


def test_products_of_one_kernel_row_at_a_time():
    """The next row's products wait for the sum over the last: only one row's are in memory at once."""
    images, kernel, _ = made((1, 5, 7))
    graph = tf.function(lambda images: sum_of_products(images, kernel)).get_concrete_function(images).graph
    products = [node for node in graph.get_operations() if node.type == "MatMul"]
    sums = [node for node in graph.get_operations() if node.type == "AddN"]
    assert len(products) == len(sums) == 3
    assert [product.control_inputs for product in products] == [[], sums[:1], sums[1:2]]


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])


def test_it_serves_on_cpus_where_channels_and_pixels_are_many(no_gpu, monkeypatch):
    images = tf.zeros([1, 32, MIN_PIXELS // 32, MIN_CHANNELS])
    assert products_serve(images, KERNEL)
    assert not products_serve(images[:, 1:], KERNEL)
    assert not products_serve(images, tf.TensorShape([3, 3, MIN_CHANNELS - 1, 2]))
    assert not products_serve(images, tf.TensorShape([1, 1, MIN_CHANNELS, 2]))
    assert not products_serve(tf.cast(images, tf.bfloat16), KERNEL)
    with stock_convolutions():
        assert not products_serve(images, KERNEL)
    assert products_serve(images, KERNEL)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"] if kind == "GPU" else [])
    assert not products_serve(images, KERNEL)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_does_not_serve_inside_xla(no_gpu, jit_compile):
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None] * 4)], jit_compile=jit_compile)
    def traced(images):
        seen.append(products_serve(images, KERNEL))
        return images

    traced(tf.zeros([1, 1, 1, 1]))
    assert seen == [not jit_compile]


def test_it_does_not_serve_in_what_is_exported(tmp_path):
    seen = []

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None] * 4)])
        def __call__(self, images):
            seen.append(products_serve(images, KERNEL))
            return images

    tf.saved_model.save(Module(), str(tmp_path))
    assert seen and not any(seen)
