//! Faults at random: a network that breaks, servers that refuse, forget to answer, restart or are
//! not there.

use std::time::{Duration, Instant};

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    proxy::{Proxy, Trouble, Way},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::field::{APPLICATION, Field};

/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// How long a server may be away.
const AWAY: Duration = Duration::from_millis(700);
/// Faults that have not come yet are called off when there are more.
const FAULTS_BEFORE_CALM: u64 = 20;

pub struct Source {
    random: StdRng,
    next: Instant,
    pub made: u64,
    calm: bool,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        Source {
            random: StdRng::seed_from_u64(seed),
            next: Instant::now() + Duration::from_secs(5),
            made: 0,
            calm: false,
        }
    }

    /// A fault, when it is time for one.
    pub async fn maybe(&mut self, field: &Field) -> anyhow::Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        let random = &mut self.random;
        self.next = Instant::now() + Duration::from_millis(random.random_range(PAUSE_MS));
        self.made += 1;
        if self.made.is_multiple_of(FAULTS_BEFORE_CALM) {
            call_off(field);
        }
        let ends = field.ends();
        let (server, link) = ends[random.random_range(0..ends.len())];
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
                tokio::time::sleep(AWAY).await;
                link.up().await;
            }
            _ => field.request_full_sync(random.random_range(1..=field.mappings())).await?,
        }
        Ok(())
    }

    /// No more.
    pub async fn end(&mut self, field: &Field) {
        if !std::mem::replace(&mut self.calm, true) {
            call_off(field);
        }
    }
}

fn network(link: &Proxy, random: &mut StdRng, trouble: Trouble) {
    let way = if random.random() { Way::ToServer } else { Way::ToClient };
    drop(link.after(way, random.random_range(0..200_000), trouble));
}

fn call_off(field: &Field) {
    for (server, link) in field.ends() {
        server.faults().clear();
        link.calm();
    }
}
