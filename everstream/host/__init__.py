"""Everything on one machine: starts the embedded Valkey, the engine and the web workers, and restarts whatever dies.

In: settings. Out: child processes that end with it. `supervisor` runs them, `child_process` is one of them,
`valkey_server` the embedded Valkey, `progress` and `terminal` what people see, `doctor` the checks of this machine.
Imported by `cli`; the set-up and the tests use `terminal` and `valkey_server`, too.
"""
