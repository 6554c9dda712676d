"""The training loop: resuming, stopping, logging, averages and learning rates."""

import json
import os
import signal

import pytest
import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.training.loop import average, cosine_rate, plateau_rate, run_training, set_rate, step_stream


class Recipe:
    """A small regression with an optimizer, a moving average and a learning rate schedule, as the real recipes have."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.average = average(self.model, 0.9)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        self.interrupt_at = None

    def update(self, step):
        if step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        set_rate(self.optimizer, cosine_rate(step, 20, 0.1, warmup=5))
        x = torch.randn(8, 4, generator=step_stream(0, "batch", step))
        loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return {"loss": loss}

    def run(self, folder, **options):
        return run_training(folder, self.parts, self.update, steps=20, settings={"seed": 0}, log_every=5, **options)


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def state(recipe):
    return torch.cat([p.flatten() for p in [*recipe.model.parameters(), *recipe.average.parameters()]])


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = Recipe()
    assert whole.run(tmp_path / "whole") == 20
    broken = Recipe()
    broken.interrupt_at = 7
    assert broken.run(tmp_path / "broken") == 8  # the current step is finished
    again = Recipe()
    assert again.run(tmp_path / "broken") == 20
    assert torch.equal(state(whole), state(again))
    logs = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in records(tmp_path / name)]
        for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1]
    assert [record["step"] for record in logs[0]] == [5, 10, 15, 20]


def test_finished_run_does_nothing_more(tmp_path):
    Recipe().run(tmp_path)
    again = Recipe()
    again.update = None
    assert again.run(tmp_path) == 20


def test_time_limit_stops_with_a_checkpoint(tmp_path):
    assert Recipe().run(tmp_path, minutes=0) == 1
    assert (tmp_path / "checkpoint.pt").exists()


def test_log_lines_past_the_checkpoint_are_dropped(tmp_path):
    Recipe().run(tmp_path, minutes=0)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    Recipe().run(tmp_path)
    assert [record["step"] for record in records(tmp_path)] == [5, 10, 15, 20]


def test_evaluation_is_logged(tmp_path):
    Recipe().run(tmp_path, evaluate=lambda step: {"accuracy": step / 20}, evaluate_every=10)
    assert [record["accuracy"] for record in records(tmp_path) if "accuracy" in record] == [0.5, 1.0]


def test_other_settings_are_refused(tmp_path):
    recipe = Recipe()
    recipe.run(tmp_path, minutes=0)
    with pytest.raises(ZeroshiftError, match="other settings"):
        run_training(tmp_path, recipe.parts, recipe.update, steps=20, settings={"seed": 1})


def test_an_unreadable_checkpoint_is_reported(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(ZeroshiftError, match="cannot be read"):
        Recipe().run(tmp_path)


def test_nan_stops_training_and_leaves_the_last_checkpoint(tmp_path):
    recipe = Recipe()
    recipe.run(tmp_path, minutes=0)
    with pytest.raises(ZeroshiftError, match="not finite"):
        run_training(
            tmp_path, recipe.parts, lambda step: {"loss": float("nan")}, steps=20, settings={"seed": 0}, log_every=1
        )
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def test_cosine_rate_warms_up_and_ends_at_its_final_value():
    assert cosine_rate(0, 100, 1.0, warmup=10) == pytest.approx(0.1)
    assert cosine_rate(10, 100, 1.0, warmup=10) == pytest.approx(1.0)
    assert cosine_rate(100, 100, 1.0, warmup=10, final=0.02) == pytest.approx(0.02)


@pytest.mark.parametrize("decay", [0.35, 0.4])
def test_plateau_rate_before_the_decay_does_not_depend_on_the_number_of_steps(decay):
    assert all(plateau_rate(step, 1000, decay=decay) == plateau_rate(step, 2000, decay=decay) for step in range(600))
    assert plateau_rate(10, 1000, decay=decay) < plateau_rate(100, 1000, decay=decay) == 1
    assert plateau_rate(999, 1000, decay=decay) < 0.01


def test_average_follows_parameters_and_buffers_and_keeps_infinities():
    model = torch.nn.BatchNorm1d(1)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]), persistent=False)
    averaged = average(model, 0.75)
    averaged.update_parameters(model)  # the first one copies
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(4.0)
        model.num_batches_tracked.fill_(3)
    averaged.update_parameters(model)
    assert averaged.module.weight.item() == pytest.approx(2.0)
    assert averaged.module.running_mean.item() == pytest.approx(1.0)
    assert averaged.module.num_batches_tracked == 3
    assert averaged.module.mask.tolist() == [0.0, float("-inf")]
