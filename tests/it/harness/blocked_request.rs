//! Requests of the daemon that a stand-in stops until the scenario releases them.

use std::sync::{
    Mutex,
    mpsc::{Receiver, Sender, channel},
};

use mssql_standin::fault::{Fault, Hook, Phase, Then};

use super::wait::WAIT_MAX;

/// A fault that blocks a request before or after its effect. The receiver gets a message when the
/// request arrives ([`wait_for_arrival`]); a message to the sender releases it.
pub fn blocked_request(at: Phase) -> (Fault, Receiver<()>, Sender<()>) {
    let (arrives, arrived) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let hook = Hook::new(move |_, phase| {
        if phase == at && arrives.send(()).is_ok() {
            let _ = released.lock().map(|released| released.recv());
        }
        Then::GoOn
    });
    (Fault::Call(hook), arrived, release)
}

/// Waits until the blocked request has arrived at the server.
pub async fn wait_for_arrival(arrived: Receiver<()>) {
    let waited = tokio::task::spawn_blocking(move || arrived.recv_timeout(WAIT_MAX));
    waited.await.expect("a thread").expect("the request arrives");
}
