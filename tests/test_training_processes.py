"""Two processes train together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training_state import BASES
from torch import nn
from torch.nn import functional

import landscape
from landscape.training import METHODS

SCRIPT = """
import sys, torch
from torch import nn
from torch.nn import functional
from landscape.training import METHODS, RowOptimizer, Vector
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
source = torch.Generator().manual_seed(0)
x, y = torch.randn(8, 4, generator=source), torch.randint(0, 3, (8,), generator=source)
mine = slice(4 * rank, 4 * rank + 4)
found, noise = {}, {}
needed = {"m-sam": {"micro_batch": 2}, "ssam-d": {"refresh_every": 1, "total_steps": 9},
          "swa": {"start": 0}, "wasam": {"start": 0}}
for views in (False, True):
    for mode in ("synchronised", "local"):
        for name, method in METHODS.items():
            if views and name not in {"sam", "bsam", "tsam"}:
                continue
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=views)
            base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            settings = needed.get(name, {})
            if name in {"sam", "tsam"}:
                settings = {"rho": 0.5}
            optimizer = method(base, wrapped, perturbation=mode, **settings)
            def losses(rows):
                logits = wrapped(x[mine][rows])
                return functional.cross_entropy(logits, y[mine][rows], reduction="none")
            def closure():
                loss = losses(torch.arange(4)).mean()
                loss.backward()
                return loss
            if name == "nso":
                drawn = optimizer.noise(Vector([torch.zeros(3)])).flat()
                noise[mode] = drawn
            for _ in range(2):
                if isinstance(optimizer, RowOptimizer):
                    optimizer.step(losses, 4)
                else:
                    optimizer.step(closure)
            flat = torch.cat([p.detach().flatten() for p in model.parameters()])
            found[f"{name} {mode} {views}"] = flat
torch.save({"weights": found, "noise": noise}, f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(landscape.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", str(script)]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_processes_stay_together(two_processes):
    first, second = [process["weights"] for process in two_processes]
    assert len(first) == 2 * len(METHODS) + 2 * 3
    for key, weights in first.items():
        assert torch.equal(weights, second[key]), key


@pytest.mark.slow
def test_gradients_that_are_views_of_buckets_change_nothing(two_processes):
    for key, weights in two_processes[0]["weights"].items():
        torch.testing.assert_close(
            weights, two_processes[0]["weights"][key.replace("True", "False")]
        )


@pytest.mark.slow
def test_synchronised_is_sam_on_the_whole_batch_and_local_is_micro_batch_sam(two_processes):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=source)
    y = torch.randint(0, 3, (8,), generator=source)
    expected = {}
    for mode, name, settings in [("synchronised", "m-sam", 8), ("local", "m-sam", 4)]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        optimizer = METHODS[name](
            BASES["sgd"](model.parameters()), model, micro_batch=settings, rho=0.5
        )
        for _ in range(2):
            optimizer.step(
                lambda rows, model=model: functional.cross_entropy(
                    model(x[rows]), y[rows], reduction="none"
                ),
                8,
            )
        expected[mode] = torch.cat([p.detach().flatten() for p in model.parameters()])
    found = two_processes[0]["weights"]
    for mode, weights in expected.items():
        torch.testing.assert_close(found[f"sam {mode} False"], weights)
    assert not torch.allclose(expected["local"], expected["synchronised"], atol=1e-4)


@pytest.mark.slow
def test_noise_is_shared_where_synchronised_and_each_process_its_own_where_local(two_processes):
    first, second = [process["noise"] for process in two_processes]
    assert torch.equal(first["synchronised"], second["synchronised"])
    assert not torch.equal(first["local"], second["local"])
