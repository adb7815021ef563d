//! The API server is away: nothing is noticed, and an owner that dies meanwhile is replaced.

use std::{
    thread,
    time::{Duration, Instant},
};

use arpeggio_lab::{
    Machine,
    observe::{RequestLoop, RequestPlan},
};
use arpeggio_scenarios::{Home, first_address, page};
use serde_json::json;

use super::{
    Plan,
    crash::outage,
    results::{Results, Row},
};
use crate::{narrator::chapter, quantile::rounded};

/// How long a failover is waited for.
const PATIENCE: Duration = Duration::from_secs(6);
/// kube-proxy comes to changed pods a second later.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a page is asked for. More connections than these in five minutes, and the client uses its ports again while
/// the nodes' connection tracking remembers them, which costs one of some thousand requests without any fault.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// Of how many failed requests it is said what became of them.
const SHOWN: usize = 5;
/// Within how many seconds an owner is to be replaced.
const MOST_SECONDS: f64 = 2.0;

/// Stops the API server while a client asks for a page over and over, and then cuts the owner's power.
pub(super) fn measure(home: &Home, plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    let minutes = plan.minutes;
    chapter(&format!("The API server is away for {minutes} min, then the owner dies"));
    let owner = home.serve_page()?;
    home.keep_pods_off("web", owner)?;
    thread::sleep(SETTLE);
    let begin = Instant::now();
    let page = RequestPlan { interval: ASK_EVERY, ..page() };
    let requests = RequestLoop::start(&home.lab.namespace(Machine::Client), page)?;
    home.lab.stop_api()?;
    thread::sleep(plan.long());
    let requests = requests.stop()?;
    let unanswered = || requests.iter().filter(|request| !request.is_answered());
    let failed = unanswered().count();
    let outcomes = unanswered().take(SHOWN).map(|request| {
        let at = rounded((request.started - begin).as_secs_f64());
        json!({ "at_s": at, "outcome": format!("{:?}", request.outcome) })
    });
    let owner = home.wait_for_owner(first_address())?;
    let back = outage(home, first_address(), owner, PATIENCE)?.as_secs_f64();
    results.line(&json!({
        "bench": "api-away",
        "minutes": minutes,
        "requests": requests.len(),
        "failed": failed,
        "outcomes": outcomes.collect::<Vec<_>>(),
        "owner_replaced_s": rounded(back),
    }))?;
    let what = format!("API server away for {minutes} min: failed requests");
    results.row(Row::at_most(what, f64::from(u32::try_from(failed)?), 0.0));
    let what = "API server away, and the owner dies: back, s";
    results.row(Row::at_most(what, rounded(back), MOST_SECONDS));
    Ok(())
}
