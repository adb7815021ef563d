//! What Kafka's own clients, `kafka-verifiable-producer` and `kafka-verifiable-consumer`, have printed, and what it says about
//! the records. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Deserialize;

/// How many problems a verdict has.
const DESCRIBED: usize = 10;

/// A record that a client has reported: the producer when it was acknowledged, the consumer when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When, in milliseconds by the clock of the client's machine.
    pub at: u64,
    /// The partition that it is in.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// What it says: records are numbered in the order in which they are sent.
    pub value: u64,
}

/// A line of a client about one record. Other lines are of other forms.
#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    timestamp: u64,
    partition: u32,
    offset: u64,
    value: String,
}

/// The records that the producer has got an acknowledgement for.
pub fn acknowledged(printed: &str) -> Vec<Record> {
    records(printed, "producer_send_success")
}

/// The records that the consumer has got.
pub fn consumed(printed: &str) -> Vec<Record> {
    records(printed, "record_data")
}

/// How many records the producer has given up.
pub fn given_up(printed: &str) -> usize {
    printed.lines().filter(|line| line.contains("\"name\":\"producer_send_error\"")).count()
}

fn records(printed: &str, event: &str) -> Vec<Record> {
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let records = lines.filter(|line| line.name == event).filter_map(|line| {
        let Line { timestamp: at, partition, offset, value, .. } = line;
        Some(Record { at, partition, offset, value: value.parse().ok()? })
    });
    records.collect()
}

/// The partitions of these records.
pub fn partitions(records: &[Record]) -> BTreeSet<u32> {
    records.iter().map(|record| record.partition).collect()
}

/// The longest time between two records of one partition, of which the later one is not among the first `before`.
pub fn longest_gap(records: &[Record], before: usize) -> Duration {
    let mut latest = BTreeMap::new();
    let mut longest = 0;
    for (number, record) in records.iter().enumerate() {
        let previous = latest.insert(record.partition, record.at).unwrap_or(record.at);
        if number >= before {
            longest = longest.max(record.at.saturating_sub(previous));
        }
    }
    Duration::from_millis(longest)
}

/// What is wrong with the records: each one that was acknowledged is to be consumed at its place, and in each partition they are
/// to be in the order in which they were sent, each once.
pub fn problems(acknowledged: &[Record], consumed: &[Record]) -> Vec<String> {
    let places: BTreeMap<(u32, u64), u64> =
        consumed.iter().map(|it| ((it.partition, it.offset), it.value)).collect();
    let lost = acknowledged
        .iter()
        .filter(|it| places.get(&(it.partition, it.offset)) != Some(&it.value))
        .map(|it| format!("acknowledged, and not consumed there: {it:?}"));
    let pairs = places.iter().zip(places.iter().skip(1));
    let disordered = pairs
        .filter(|((one, first), (other, second))| one.0 == other.0 && first >= second)
        .map(|(one, other)| format!("not in order: {one:?} and then {other:?}"));
    lost.chain(disordered).take(DESCRIBED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: u64, partition: u32, offset: u64, value: u64) -> Record {
        Record { at, partition, offset, value }
    }

    #[test]
    fn lines_of_the_clients_are_read() {
        let printed = "\
[main] WARN something
{\"timestamp\":1,\"name\":\"startup_complete\"}
{\"timestamp\":17,\"name\":\"producer_send_success\",\"key\":\"0\",\"value\":\"3\",\"offset\":5,\"topic\":\"t\",\"partition\":2}
{\"timestamp\":18,\"name\":\"producer_send_error\",\"key\":\"0\",\"value\":\"4\",\"topic\":\"t\"}
{\"timestamp\":19,\"name\":\"record_data\",\"key\":\"0\",\"value\":\"3\",\"topic\":\"t\",\"partition\":2,\"offset\":5}
{\"timestamp\":20,\"name\":\"rec";
        assert_eq!(acknowledged(printed), [record(17, 2, 5, 3)]);
        assert_eq!(consumed(printed), [record(19, 2, 5, 3)]);
        assert_eq!(given_up(printed), 1);
    }

    #[test]
    fn a_gap_is_one_of_a_partition() {
        let records = [
            record(0, 0, 0, 0),
            record(900, 1, 0, 1),
            record(1_000, 0, 1, 2),
            record(1_100, 1, 1, 3),
            record(1_300, 0, 2, 4),
        ];
        assert_eq!(longest_gap(&records, 0), Duration::from_secs(1));
        assert_eq!(longest_gap(&records, 3), Duration::from_millis(300));
        assert_eq!(longest_gap(&records, 5), Duration::ZERO);
        assert_eq!(partitions(&records), BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_lost_record_is_a_problem() {
        let all = [record(0, 0, 0, 0), record(0, 1, 0, 1), record(0, 0, 1, 2)];
        assert_eq!(problems(&all, &all), [""; 0]);
        assert_eq!(problems(&all, &all[..2]).len(), 1);
        assert_eq!(problems(&all[..2], &all), [""; 0]);
        let elsewhere = [all[0], all[1], record(0, 0, 2, 2)];
        assert_eq!(problems(&all, &elsewhere).len(), 1);
    }

    #[test]
    fn disorder_and_doubles_are_problems() {
        let swapped = [record(0, 0, 0, 1), record(0, 0, 1, 0)];
        assert_eq!(problems(&[], &swapped).len(), 1);
        let doubled = [record(0, 0, 0, 1), record(0, 0, 1, 1)];
        assert_eq!(problems(&[], &doubled).len(), 1);
        // What the consumer gets twice after a rebalance is one record.
        assert_eq!(problems(&[], &[record(0, 0, 0, 1), record(9, 0, 0, 1)]), [""; 0]);
    }
}
