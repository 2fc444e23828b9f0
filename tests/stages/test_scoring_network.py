"""The scorer's network: what it computes, its gradient, and rows that do not depend on each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stream_app.stages.scoring_network import NUM_HIDDEN, Network, forward, gradient, start_parameters
from stream_app.stages.scoring_network import outputs as outputs_of


def outputs(network: Network, rows_NF: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """The outputs of rows."""
    return outputs_of(network, forward(network, rows_NF))


def test_one_unit_by_hand() -> None:
    # relu(2·3 - 1·1 + 1) = 6, relu(-1·6 + 8) = 2, 2·0.5 = 1
    network = Network.of(np.array([2.0, -1.0, 1.0, -1.0, 8.0, 0.5]), 2, 1)
    assert outputs(network, np.array([[3.0, 1.0]])).tolist() == [1.0]


def test_a_unit_below_zero_is_silent() -> None:
    network = Network.of(np.array([1.0, 0.0, 1.0, 0.0, 1.0]), 1, 1)
    assert outputs(network, np.array([[-2.0], [2.0]])).tolist() == [0.0, 2.0]


def test_the_gradient_is_that_of_differences() -> None:
    generator = np.random.default_rng(3)
    parameters = generator.standard_normal(3 * 4 + 4 + 4 * 4 + 4 + 4)
    rows_NF, errors_N = generator.standard_normal((6, 3)), generator.standard_normal(6)

    def weighed(values: np.ndarray) -> float:
        return float(errors_N @ outputs(Network.of(values, 3, 4), rows_NF))

    step = 1e-6
    expected = [
        (weighed(parameters + step * unit) - weighed(parameters - step * unit)) / (2 * step)
        for unit in np.eye(len(parameters))
    ]
    network = Network.of(parameters, 3, 4)
    found = gradient(network, forward(network, rows_NF), errors_N)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 64, 211])
def test_a_row_has_the_same_bits_in_any_company(num_rows: int) -> None:
    generator = np.random.default_rng(num_rows)
    parameters = generator.standard_normal(len(start_parameters(22)))
    network = Network.of(parameters, 22, NUM_HIDDEN)
    rows_NF = generator.standard_normal((211, 22))
    assert outputs(network, rows_NF[:num_rows]).tolist() == outputs(network, rows_NF)[:num_rows].tolist()


def test_no_rows_have_no_outputs() -> None:
    network = Network.of(start_parameters(5), 5, NUM_HIDDEN)
    assert outputs(network, np.empty((0, 5))).tolist() == []


def test_it_starts_at_zero_and_always_the_same() -> None:
    first, second = start_parameters(5), start_parameters(5)
    assert first.tobytes() == second.tobytes()
    assert outputs(Network.of(first, 5, NUM_HIDDEN), np.ones((3, 5))).tolist() == [0.0, 0.0, 0.0]


def test_another_number_of_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="5 parameters, expected 6 for 2 features, 1 units"):
        Network.of(np.zeros(5), 2, 1)
