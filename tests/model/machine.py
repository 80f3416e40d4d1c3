"""Running a state machine as a test, with the settings of the profile in force."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run(machine: type[RuleBasedStateMachine]) -> None:
    """Many random sequences of the machine's rules; the shortest that fails is shown."""
    run_state_machine_as_test(machine)
