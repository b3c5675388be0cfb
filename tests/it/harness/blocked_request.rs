//! Requests that a scenario holds, to do something in between.

use std::sync::{
    Mutex,
    mpsc::{Receiver, Sender, channel},
};

use mssql_standin::fault::{Fault, Hook, Phase, Then};

/// A request that waits, before or after its effect, until the scenario lets it go; who hears of
/// it, and who lets it go.
pub fn blocked_request(at: Phase) -> (Fault, Receiver<()>, Sender<()>) {
    let (here, arrived) = channel();
    let (go, let_go) = channel();
    let let_go = Mutex::new(let_go);
    let hook = Hook::new(move |_, phase| {
        if phase == at && here.send(()).is_ok() {
            let _ = let_go.lock().map(|let_go| let_go.recv());
        }
        Then::GoOn
    });
    (Fault::Call(hook), arrived, go)
}

pub async fn arrives(at: Receiver<()>) {
    let waited = tokio::task::spawn_blocking(move || at.recv_timeout(super::PATIENCE));
    waited.await.expect("a thread").expect("the request comes");
}
