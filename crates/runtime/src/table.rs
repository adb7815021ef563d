//! Gauges of which some come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::IntGaugeVec;

/// What a table shows: a value for each combination of its labels' values.
pub type Rows<const LABELS: usize> = BTreeMap<[String; LABELS], i64>;

/// Gauges of which some come and go. What stays is never gone in between, when somebody looks.
#[derive(Debug, Clone)]
pub struct Table<const LABELS: usize> {
    gauges: IntGaugeVec,
    shown: Arc<Mutex<BTreeSet<[String; LABELS]>>>,
}

impl<const LABELS: usize> Table<LABELS> {
    /// A table that shows nothing yet. Nobody else is to change these gauges.
    pub fn new(gauges: IntGaugeVec) -> Self {
        Self { gauges, shown: Arc::default() }
    }

    /// Shows these and no others.
    pub fn show(&self, rows: Rows<LABELS>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for labels in shown.iter().filter(|labels| !rows.contains_key(*labels)) {
            // There is nothing else that could remove it.
            let _ = self.gauges.remove_label_values(labels);
        }
        for (labels, value) in &rows {
            self.gauges.with_label_values(labels).set(*value);
        }
        *shown = rows.into_keys().collect();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Opts, core::Collector as _};

    use super::*;

    #[test]
    fn what_stays_is_there_at_every_moment() {
        let gauges = IntGaugeVec::new(Opts::new("pools", "Pools."), &["pool", "family"]).unwrap();
        let table = Table::new(gauges.clone());
        let rows = |pools: &[&str]| -> Rows<2> {
            pools.iter().map(|pool| ([(*pool).to_owned(), "ipv4".to_owned()], 1)).collect()
        };
        table.show(rows(&["home", "old"]));
        let looks = {
            let gauges = gauges.clone();
            std::thread::spawn(move || {
                let count = || gauges.collect()[0].get_metric().len();
                (0..20_000).map(|_| count()).min().unwrap()
            })
        };
        while !looks.is_finished() {
            table.show(rows(&["home", "new"]));
            table.show(rows(&["home", "old"]));
        }
        assert!(looks.join().unwrap() >= 1, "a look saw no pool at all");
    }
}
