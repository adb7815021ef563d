//! Random histories of faults. What must hold in each: two machines that hear each other never both answer for an address
//! for long, and when everything works again every address has exactly one owner.
//!
//! A failure names its seed; `CHAOS_SEED=n` runs that one alone, `CHAOS_RUNS=n` runs more.

use std::time::Duration;

use arpeggio_wire::MacAddr;

use super::{
    cluster::{Cluster, ip, ip6, millis, secs},
    random::{Random, number},
};

const FAULTS_PER_HISTORY: usize = 10;

/// As in the simulation of electors alone: until a node that came back from a cut has its session written again, and has
/// seen who holds what.
const LONGEST_OVERLAP: Duration = millis(1500);

/// Happens to a machine, or to the way from it to another one.
type Fault = fn(&mut Cluster, usize, usize, &mut Random);

const FAULTS: [(&str, Fault); 15] = [
    ("power off", |it, one, _, _| it.power_off(one)),
    ("power on", |it, one, _, _| it.power_on(one)),
    ("restart", |it, one, _, random| {
        it.machines[one].lists_take = [random.below(3000), random.below(3000)];
        if it.machines[one].powered {
            it.start_speaker(one);
        }
    }),
    ("pause", |it, one, _, _| it.machines[one].paused = it.machines[one].powered),
    ("resume", |it, one, _, _| it.machines[one].paused = false),
    ("stop", |it, one, _, _| it.stop_speaker(one)),
    ("API cut", |it, one, _, _| it.api_cut(one)),
    ("API healed", |it, one, _, _| it.api_heal(one)),
    ("API down", |it, _, _, _| (0..it.machines.len()).for_each(|one| it.api_cut(one))),
    ("API up", |it, _, _, _| (0..it.machines.len()).for_each(|one| it.api_heal(one))),
    ("cable out", |it, one, _, random| {
        let card = random.index(it.machines[one].cards.len());
        it.cable(one, card, false);
    }),
    ("cables in", |it, one, _, _| {
        (0..it.machines[one].cards.len()).for_each(|card| it.cable(one, card, true));
    }),
    ("cut between", |it, one, other, _| _ = it.cuts.insert((one, other))),
    ("MAC changed", |it, one, _, random| {
        let octets = [0; 2].map(|_| u8::try_from(random.below(256)).unwrap());
        // To one that cannot read of it, it is a stranger: see the limits in docs/architecture.md.
        if it.machines.iter().any(|machine| !machine.api) {
            return;
        }
        it.change_mac(one, 0, MacAddr(2, 0, 0, 9, octets[0], octets[1]));
    }),
    ("all healed", |it, _, _, _| heal(it)),
];

fn heal(cluster: &mut Cluster) {
    cluster.cuts.clear();
    for index in 0..cluster.machines.len() {
        let machine = &mut cluster.machines[index];
        (machine.paused, machine.lists_take) = (false, [6, 8]);
        (0..machine.cards.len()).for_each(|card| cluster.cable(index, card, true));
        cluster.api_heal(index);
        if cluster.machines[index].speaker.is_none() || cluster.machines[index].stops {
            cluster.power_on(index);
        }
    }
}

fn history(seed: u64) {
    let mut random = Random(seed);
    let machines = 2 + random.index(7);
    let two_segments = machines > 3 && random.below(2) == 0;
    let segments: Vec<&[u8]> = (0..machines)
        .map(|_| match random.below(3) {
            0 if two_segments => &[0, 1][..],
            1 if two_segments => &[1],
            _ => &[0],
        })
        .collect();
    let here: Vec<u8> =
        [0, 1].into_iter().filter(|it| segments.iter().any(|there| there.contains(it))).collect();
    let addresses: Vec<_> =
        here.iter().flat_map(|it| [ip(*it, 100), ip(*it, 101), ip6(*it, 102)]).collect();
    let mut cluster = Cluster::on(&segments);
    cluster.settle(&addresses);
    let mut story = vec![format!("{segments:?}")];
    for _ in 0..FAULTS_PER_HISTORY {
        let (name, fault) = FAULTS[random.index(FAULTS.len())];
        let one = random.index(machines);
        let other = (one + 1 + random.index(machines - 1)) % machines;
        let span = millis(random.below(6000));
        story.push(format!("{name}: {one} ({other}), then {span:?}"));
        fault(&mut cluster, one, other, &mut random);
        cluster.run(span);
    }
    heal(&mut cluster);
    cluster.run(secs(25));
    for address in addresses {
        let owners = cluster.owners(address);
        assert_eq!(owners.len(), 1, "seed {seed}: {address}: {owners:?} {story:#?} {cluster:?}");
    }
    let overlap = cluster.longest_overlap;
    assert!(overlap <= LONGEST_OVERLAP, "seed {seed}: {overlap:?} {story:#?} {cluster:?}");
}

#[test]
fn random_histories_of_faults() {
    if let Some(seed) = number("CHAOS_SEED") {
        return history(seed);
    }
    (0..number("CHAOS_RUNS").unwrap_or(12)).for_each(history);
}
