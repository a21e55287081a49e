"""numpy with its BLAS threads: views of one base, a product computed again bit for bit, the random generators."""

import subject

try:
    import numpy as np
except ImportError:
    subject.skipped("numpy")


def body() -> None:
    generator = np.random.default_rng(7)
    base = generator.standard_normal((700, 700))
    view, transposed = base[10:20, ::3], base.T
    before = base @ base
    twin = np.random.default_rng(7)
    twin.standard_normal((700, 700))
    np.random.seed(3)
    legacy = np.random.RandomState(3)

    def spoil() -> None:
        base[:] = 0
        np.random.seed(4)

    subject.wait(spoil)
    subject.expect(np.array_equal(base @ base, before), "the product differs")
    subject.expect(np.shares_memory(view, base) and np.array_equal(transposed, base.T), "the views are no views")
    base[10, 0] = 99
    subject.expect(view[0, 0] == 99 and transposed[0, 10] == 99, "a write does not show in the views")
    subject.expect(np.array_equal(generator.random(50), twin.random(50)), "the generator's state")
    subject.expect(np.array_equal(np.random.rand(50), legacy.rand(50)), "the global random state")


subject.main(body)
