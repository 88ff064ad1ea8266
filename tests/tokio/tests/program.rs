//! A program that ends while its server is in use.
#![cfg(unix)]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

const CLIENTS: usize = 100;

/// Connects, has five messages echoed and goes, again and again; until the server is gone.
async fn come_and_go(url: String, echoes: Arc<AtomicUsize>) {
    while let Ok(mut ws) = tidewire::connect(url.clone()).await {
        for _ in 0..5 {
            match ws.send("Hello").await {
                Ok(()) if matches!(ws.recv().await, Ok(Some(_))) => echoes.fetch_add(1, Relaxed),
                _ => return,
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_under_load_ends_with_ctrl_c_each_time() {
    for run in 0..30 {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tokio-check"))
            .args((run % 2 == 0).then_some("spawner"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
        let first = said.next_line().await.unwrap().unwrap();
        let addr = first.strip_prefix("listening on ").unwrap();

        let echoes = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(come_and_go(format!("ws://{addr}/ws"), Arc::clone(&echoes)));
        }
        while echoes.load(Relaxed) < 2 * CLIENTS {
            assert_eq!(clients.len(), CLIENTS);
            tokio::task::yield_now().await;
        }
        let id = program.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
        let ended = timeout(Duration::from_secs(10), program.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("run {run} does not end")).unwrap();
        assert!(status.success(), "run {run}: {status}");
        assert_eq!(said.next_line().await.unwrap().unwrap(), "bye");
        clients.shutdown().await;
    }
}
