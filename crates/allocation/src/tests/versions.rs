//! Two controllers of different releases, as during an upgrade, after it was taken back, or when it was taken back too far:
//! they take turns in leading and lead at once, die between any two writes, and are replaced by each other's release;
//! meanwhile the API server refuses requests or its answers are lost, another program writes the status of Services, and
//! Services are created again.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    cluster,
    editions::Edition,
    simulation::{self, CONTROLLERS, SERVICES, Step, World},
};
use crate::Periods;

/// How many writes there may be for one change of anything, whoever makes it, in the long run: two locks claimed and given
/// back, statuses before and after, a record, and the same once more for whoever remembers it otherwise.
const WRITES_FOR_A_STEP: u64 = 8;

/// What a change of the leader may cost for each Service that there is.
const WRITES_FOR_A_LEADER: u64 = 4;

#[derive(Debug, Clone)]
enum Turn {
    Step(Step),
    /// A controller dies, and one of this release takes its place.
    Replace(usize, Edition),
    /// A Service is deleted and created again at once.
    Recreate(u8),
    /// Another program writes the list of addresses of a Service as it is, so that it is its own.
    Usurp(u8),
    /// The answer to a request that was performed is lost.
    Lose(usize),
}

impl World {
    fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Step(step) => self.take(step),
            Turn::Replace(which, edition) => {
                self.editions[*which] = *edition;
                self.take(&Step::Restart(*which));
            }
            Turn::Recreate(number) => {
                if self.cluster.has_service(&simulation::name(*number)) {
                    self.take(&Step::Toggle(*number));
                    self.take(&Step::Toggle(*number));
                }
            }
            Turn::Usurp(number) => {
                let name = simulation::name(*number);
                if self.cluster.has_service(&name) {
                    self.cluster.usurp_status(&name, "rival");
                }
            }
            Turn::Lose(which) => self.lose(*which),
        }
    }

    fn check_always(&self) -> Result<(), TestCaseError> {
        self.check_no_address_twice()?;
        self.check_every_address_has_a_lock()?;
        prop_assert_eq!(&self.trespasses, &[""; 0], "a Lease of a higher format was changed");
        Ok(())
    }

    /// All comes to rest under this leader, for no more writes than this, and stays so.
    fn rest_under(&mut self, leader: usize, writes: u64) -> Result<(), TestCaseError> {
        let before = self.writes;
        self.settle_under(leader)?;
        self.check_always()?;
        let made = self.writes - before;
        prop_assert!(made <= writes, "{made} writes, and not {writes} at most");
        let before = self.writes;
        for hours in [1, 24] {
            self.time += Duration::from_hours(hours);
            self.settle_under(leader)?;
        }
        prop_assert_eq!(self.writes, before, "rest costs writes");
        Ok(())
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    let edition = prop::sample::select(Edition::ALL.to_vec());
    prop_oneof![
        30 => simulation::step().prop_map(Turn::Step),
        1 => (0..CONTROLLERS, edition).prop_map(|(which, edition)| Turn::Replace(which, edition)),
        1 => (0..SERVICES).prop_map(Turn::Recreate),
        1 => (0..SERVICES).prop_map(Turn::Usurp),
        2 => (0..8usize).prop_map(Turn::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn controllers_of_two_releases_give_no_address_twice_and_lose_no_claim(
        first in prop::sample::select(Edition::ALL.to_vec()),
        second in prop::sample::select(Edition::ALL.to_vec()),
        turns in prop::collection::vec(turn(), 1..120),
        patient: bool,
    ) {
        let succession = Duration::from_secs(if patient { 3 } else { 0 });
        let mut world = World::of([first, second], Periods { succession, ..cluster::PERIODS });
        for turn in &turns {
            world.turn(turn);
            world.check_always()?;
        }
        let steps = u64::try_from(turns.len()).unwrap();
        let at_stake = u64::from(SERVICES) * WRITES_FOR_A_LEADER;
        prop_assert!(world.writes <= steps * WRITES_FOR_A_STEP);
        let newest = usize::from(world.editions[0] < world.editions[1]);
        world.rest_under(1 - newest, steps * WRITES_FOR_A_STEP + at_stake)?;
        world.rest_under(newest, at_stake)?;
        // Whoever knows no more than one of both does leaves alone what only the other one can change.
        let all_known = world.editions[newest] == Edition::After || !world.has_newer();
        if all_known {
            world.check_rest()?;
        }
        let before = world.writes;
        world.take(&Step::Restart(newest));
        // What a newer release keeps of a pool is not read, and what nobody keeps is forgotten.
        let forgets = !(all_known && world.editions[newest].keeps_records());
        let told_anew = world.waiting_for_one_address();
        world.rest_under(newest, if forgets { at_stake } else { told_anew })?;
        world.rest_under(1 - newest, at_stake)?;
        prop_assert!(world.writes <= before + at_stake);
    }
}
