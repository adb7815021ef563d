//! One transaction.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use crate::{
    attributes::Attributes,
    expression::plain,
    message::{Kind, Message},
    tables::{
        Contents, Data, Hook, Rule, Set, SetKind, SetValue, Table, Tables, kind_of, length_of,
    },
};

/// How many elements one message has, so that a list stays below the 64 KiB of an attribute.
const ELEMENTS: usize = 256;

/// Changes that the kernel makes all together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    messages: Vec<Message>,
    /// How many sets it makes: each needs a number of its own.
    sets: u32,
}

impl Batch {
    /// Without a change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages it has.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What brings the kernel from one state to another. Tables that stay are changed where they differ; a table whose base
    /// chains or kinds of sets differ is made anew.
    pub fn between(old: &Tables, new: &Tables) -> Self {
        let mut batch = Self::new();
        for table in old.keys().filter(|table| !new.contains_key(*table)) {
            batch.delete_table(table);
        }
        for (table, contents) in new {
            match old.get(table) {
                Some(before) if before == contents => {}
                Some(before) if before.can_become(contents) => {
                    batch.change(table, before, contents);
                }
                Some(_) => {
                    batch.delete_table(table);
                    batch.make(table, contents);
                }
                None => batch.make(table, contents),
            }
        }
        batch
    }

    /// Removes all old tables and makes the new ones, whatever is in the old ones by now.
    pub fn anew(old: &Tables, new: &Tables) -> Self {
        let mut batch = Self::new();
        old.keys().for_each(|table| batch.delete_table(table));
        new.iter().for_each(|(table, contents)| batch.make(table, contents));
        batch
    }

    /// A table with all that is to be in it.
    fn make(&mut self, table: &Table, contents: &Contents) {
        self.add_table(table);
        self.change(table, &Contents::default(), contents);
    }

    /// The order matters to the kernel: what is referred to is there before what refers to it, and goes after it.
    fn change(&mut self, table: &Table, old: &Contents, new: &Contents) {
        new.counters.difference(&old.counters).for_each(|name| self.add_counter(table, name));
        missing(&new.sets, &old.sets).for_each(|(name, set)| self.add_set(table, name, &set.kind));
        missing(&new.chains, &old.chains)
            .for_each(|(name, chain)| self.add_chain(table, name, chain.hook.as_ref()));
        for (name, _) in
            old.chains.iter().filter(|(name, chain)| new.chains.get(*name) != Some(*chain))
        {
            self.flush_chain(table, name);
        }
        missing(&old.sets, &new.sets).for_each(|(name, _)| self.delete_set(table, name));
        for (name, set) in &new.sets {
            self.change_elements(table, name, old.sets.get(name), set);
        }
        for (name, chain) in
            new.chains.iter().filter(|(name, chain)| old.chains.get(*name) != Some(*chain))
        {
            chain.rules.iter().for_each(|rule| self.add_rule(table, name, rule));
        }
        missing(&old.chains, &new.chains).for_each(|(name, _)| self.delete_chain(table, name));
        old.counters.difference(&new.counters).for_each(|name| self.delete_counter(table, name));
    }

    fn change_elements(&mut self, table: &Table, name: &str, old: Option<&Set>, new: &Set) {
        let empty = BTreeMap::new();
        let old = old.map_or(&empty, |set| &set.elements);
        let gone = old
            .iter()
            .filter(|(key, data)| new.elements.get(*key) != Some(*data))
            .map(|(key, _)| key.as_slice());
        self.remove_elements(table, name, gone);
        let came = new.elements.iter().filter(|(key, data)| old.get(*key) != Some(*data));
        self.add_elements(table, name, came.map(|(key, data)| (key.as_slice(), data)));
    }

    /// A table that goes when the socket closes.
    pub fn add_table(&mut self, table: &Table) {
        self.add_table_with(table, true);
    }

    pub(crate) fn add_table_with(&mut self, table: &Table, owned: bool) {
        self.push(Kind::NewTable, table, format!("add table {table}"), |attributes| {
            // NFT_TABLE_F_OWNER
            attributes.text(1, &table.name).number(2, if owned { 2 } else { 0 });
        });
    }

    /// A table with all that is in it.
    pub fn delete_table(&mut self, table: &Table) {
        self.push(Kind::DeleteTable, table, format!("delete table {table}"), |attributes| {
            attributes.text(1, &table.name);
        });
    }

    /// An empty chain.
    pub fn add_chain(&mut self, table: &Table, name: &str, hook: Option<&Hook>) {
        self.push(Kind::NewChain, table, format!("add chain {table} {name}"), |attributes| {
            attributes.text(1, &table.name).text(3, name);
            if let Some(hook) = hook {
                attributes.nest(4, |nest| write_hook(nest, hook)).text(7, "filter");
            }
        });
    }

    /// A chain that is empty and that nothing refers to.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        self.push(Kind::DeleteChain, table, format!("delete chain {table} {name}"), |attributes| {
            attributes.text(1, &table.name).text(3, name);
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, name: &str) {
        self.push(Kind::DeleteRule, table, format!("flush chain {table} {name}"), |attributes| {
            attributes.text(1, &table.name).text(2, name);
        });
    }

    /// A rule behind those that are in the chain.
    pub fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let steps: Vec<_> = rule.iter().map(crate::Expression::name).collect();
        let what = format!("add rule {table} {chain} ({})", steps.join(", "));
        self.push(Kind::NewRule, table, what, |attributes| {
            attributes.text(1, &table.name).text(2, chain);
            attributes.nest(4, |list| rule.iter().for_each(|expression| expression.write(list)));
        });
    }

    /// An empty set or map.
    pub fn add_set(&mut self, table: &Table, name: &str, kind: &SetKind) {
        self.sets += 1;
        let id = self.sets;
        self.push(Kind::NewSet, table, format!("add set {table} {name}"), |attributes| {
            attributes.text(1, &table.name).text(2, name);
            // NFT_SET_MAP
            attributes.number(3, if kind.is_map() { 8 } else { 0 });
            attributes.number(4, kind_of(&kind.key)).number(5, length_of(&kind.key));
            match &kind.value {
                SetValue::Nothing => {}
                // NFT_DATA_VERDICT
                SetValue::Verdict => {
                    attributes.number(6, 0xffff_ff00);
                }
                SetValue::Data(fields) => {
                    attributes.number(6, kind_of(fields)).number(7, length_of(fields));
                }
            }
            attributes.number(10, id);
        });
    }

    /// A set or map that no rule refers to.
    pub fn delete_set(&mut self, table: &Table, name: &str) {
        self.push(Kind::DeleteSet, table, format!("delete set {table} {name}"), |attributes| {
            attributes.text(1, &table.name).text(2, name);
        });
    }

    /// More elements of a set or map.
    pub fn add_elements<'a>(
        &mut self,
        table: &Table,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], &'a Data)>,
    ) {
        let elements: Vec<_> = elements.into_iter().map(|(key, data)| (key, Some(data))).collect();
        self.elements(Kind::NewElements, "add elements", table, set, &elements);
    }

    /// Fewer elements of a set or map.
    pub fn remove_elements<'a>(
        &mut self,
        table: &Table,
        set: &str,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let elements: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
        self.elements(Kind::DeleteElements, "remove elements", table, set, &elements);
    }

    fn elements(
        &mut self,
        kind: Kind,
        verb: &str,
        table: &Table,
        set: &str,
        elements: &[(&[u8], Option<&Data>)],
    ) {
        for part in elements.chunks(ELEMENTS) {
            self.push(kind, table, format!("{verb} {table} {set}"), |attributes| {
                attributes.text(1, &table.name).text(2, set);
                attributes.nest(3, |list| {
                    part.iter().for_each(|(key, data)| write_element(list, key, *data));
                });
            });
        }
    }

    /// A named counter, at zero.
    pub fn add_counter(&mut self, table: &Table, name: &str) {
        self.push(Kind::NewObject, table, format!("add counter {table} {name}"), |attributes| {
            // NFT_OBJECT_COUNTER
            attributes.text(1, &table.name).text(2, name).number(3, 1);
            attributes.nest(4, |counter| {
                counter.long(1, 0).long(2, 0);
            });
        });
    }

    /// A named counter that no rule refers to.
    pub fn delete_counter(&mut self, table: &Table, name: &str) {
        self.push(
            Kind::DeleteObject,
            table,
            format!("delete counter {table} {name}"),
            |attributes| {
                attributes.text(1, &table.name).text(2, name).number(3, 1);
            },
        );
    }

    fn push(
        &mut self,
        kind: Kind,
        table: &Table,
        what: String,
        fill: impl FnOnce(&mut Attributes),
    ) {
        let flags = match kind {
            Kind::NewRule => NLM_F_CREATE | NLM_F_APPEND,
            kind if kind.creates() => NLM_F_CREATE,
            _ => 0,
        };
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        self.messages.push(Message {
            kind,
            flags,
            family: table.family.number(),
            attributes,
            what,
        });
    }
}

impl Contents {
    /// Whether changes can make the one out of the other, without making anything of the same name anew.
    fn can_become(&self, new: &Self) -> bool {
        let same_sets = self
            .sets
            .iter()
            .all(|(name, set)| new.sets.get(name).is_none_or(|other| other.kind == set.kind));
        let same_hooks = self
            .chains
            .iter()
            .all(|(name, chain)| new.chains.get(name).is_none_or(|other| other.hook == chain.hook));
        same_sets && same_hooks
    }
}

/// What is in `ours` and not in `others`.
fn missing<'a, T>(
    ours: &'a BTreeMap<String, T>,
    others: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    ours.iter().filter(|(name, _)| !others.contains_key(*name))
}

fn write_hook(nest: &mut Attributes, hook: &Hook) {
    // NF_INET_PRE_ROUTING and NF_NETDEV_INGRESS
    nest.number(1, 0);
    match hook {
        Hook::Prerouting { priority } => nest.bytes(2, &priority.to_be_bytes()),
        Hook::Ingress { device, priority, .. } => {
            nest.bytes(2, &priority.to_be_bytes()).text(3, device)
        }
    };
}

fn write_element(list: &mut Attributes, key: &[u8], data: Option<&Data>) {
    list.nest(1, |element| {
        element.nest(1, |nest| plain(nest, key));
        match data {
            None | Some(Data::Nothing) => {}
            Some(Data::Bytes(bytes)) => {
                element.nest(2, |nest| plain(nest, bytes));
            }
            Some(Data::Verdict(verdict)) => {
                element.nest(2, |nest| verdict.write(nest));
            }
        }
    });
}
