//! Executors that an application brings: good ones, strange ones, and such that are gone.
//!
//! There is one spawner in a process, so each has a process of its own: this test binary again, for one
//! test.
//!
//! | file | holds |
//! | --- | --- |
//! | `brought` | the executors |
//! | `program` | what a program does with a server on each of them |

mod brought;
mod program;

use crate::support::separate_process;

/// Is the program, in a process that was started for it. Does nothing when run as a test.
#[test]
fn a_program_with_an_executor_of_its_own() {
    if let Some(executor) = separate_process::program() {
        program::run(&executor);
    }
}

/// Runs the program on the executor of this name.
fn run_on(executor: &str) {
    separate_process::run("executors::a_program_with_an_executor_of_its_own", executor);
}

#[test]
fn an_executor_with_a_thread_for_each_task_runs_a_server() {
    run_on("threads");
}

#[test]
fn an_executor_that_begins_with_a_task_before_it_returns_runs_a_server() {
    run_on("eager");
}

#[test]
fn an_executor_that_goes_on_with_a_task_where_it_is_woken_runs_a_server() {
    run_on("inline");
}

#[test]
fn an_executor_that_drops_tasks_ends_connections_and_leaves_no_client_waiting() {
    run_on("drops");
}

#[test]
fn an_executor_that_panics_ends_connections_and_leaves_no_client_waiting() {
    run_on("panics");
}

#[test]
fn an_executor_that_never_runs_its_tasks_leaves_no_client_waiting() {
    run_on("keeps");
}

#[test]
fn an_executor_that_is_gone_gives_back_the_resources_of_its_connections() {
    run_on("stops");
}

#[test]
fn an_executor_that_drops_a_task_where_it_is_woken_gives_back_its_resources() {
    run_on("stops_when_woken");
}

#[test]
fn an_executor_that_has_no_place_for_a_handler_refuses_its_upgrade() {
    run_on("refuses_handlers");
}
