//! Arguments, run, exit code: 0 done, 1 it did not work (one line on stderr says what and how to mend it), 2 wrong usage.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    postrider::cli::main()
}
