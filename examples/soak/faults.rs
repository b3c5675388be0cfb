//! Random faults: networks that fail; servers that return errors, do not answer, restart or cannot be
//! reached.

use std::time::{Duration, Instant};

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    proxy::{Proxy, Trouble, Way},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::fixture::{APPLICATION, Fixture};

/// The range of random times between two faults.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// How long the port of a server is closed.
const DOWNTIME: Duration = Duration::from_millis(700);
/// After this many faults, those that have not occurred are cleared.
const FAULTS_UNTIL_CLEAR: u64 = 20;

/// Injects faults.
pub struct Injector {
    random: StdRng,
    next: Instant,
    /// how many faults were injected
    pub injected: u64,
    ended: bool,
}

impl Injector {
    pub fn new(seed: u64) -> Self {
        Injector {
            random: StdRng::seed_from_u64(seed),
            next: Instant::now() + Duration::from_secs(5),
            injected: 0,
            ended: false,
        }
    }

    /// Injects a fault if the pause since the last one is over.
    pub async fn inject_when_due(&mut self, fixture: &Fixture) -> anyhow::Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        let random = &mut self.random;
        self.next = Instant::now() + Duration::from_millis(random.random_range(PAUSE_MS));
        self.injected += 1;
        if self.injected.is_multiple_of(FAULTS_UNTIL_CLEAR) {
            clear(fixture);
        }
        let servers = fixture.servers();
        let (server, link) = servers[random.random_range(0..servers.len())];
        let nth = random.random_range(1..200);
        let text = ["", "", "COMMIT", "BULK LOAD", "DECLARE @fetched", "AS t ", "SELECT s.["]
            [random.random_range(0..7)];
        let request = |fault| {
            drop(server.faults().arm(Point::request(text), Some(APPLICATION), nth, Some(1), fault))
        };
        let number = [1205, 1222, 9002, 1105, 942, 945][random.random_range(0..6)];
        let error = SqlError::new(number, 16, "injected by the soak");
        match random.random_range(0..12) {
            0 => request(Fault::CloseBefore),
            1 => request(Fault::CloseAfter),
            2 => request(Fault::ResetBefore),
            3 => request(Fault::ResetAfter),
            4 => request(Fault::ErrorBefore(error)),
            5 => request(Fault::ErrorAfter(error)),
            6 => request(if random.random() { Fault::HangBefore } else { Fault::HangAfter }),
            7 => network(link, random, Trouble::Reset),
            8 => network(link, random, Trouble::Silence),
            9 => network(link, random, Trouble::Slow(Duration::from_secs(1))),
            10 if random.random_range(0..3) == 0 => server.restart().await,
            10 => {
                link.down().await;
                tokio::time::sleep(DOWNTIME).await;
                link.up().await;
            }
            _ => fixture.request_full_sync(random.random_range(1..=fixture.mappings())).await?,
        }
        Ok(())
    }

    /// Clears all faults that have not occurred; none is injected afterwards.
    pub async fn end(&mut self, fixture: &Fixture) {
        if !std::mem::replace(&mut self.ended, true) {
            clear(fixture);
        }
    }
}

fn network(link: &Proxy, random: &mut StdRng, trouble: Trouble) {
    let way = if random.random() { Way::ToServer } else { Way::ToClient };
    drop(link.after(way, random.random_range(0..200_000), trouble));
}

fn clear(fixture: &Fixture) {
    for (server, link) in fixture.servers() {
        server.faults().clear();
        link.calm();
    }
}
