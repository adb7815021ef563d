use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use k8s_openapi::ByteString;

use super::*;

/// The format that users have, comments included.
const EXAMPLE: &str = "\
address-pools:
# Used in HAProxy and internal DNS, for services accessible from Internet
- name: external
  protocol: layer2
  addresses:
  - 192.168.0.3/32

# Used only in internal DNS, for services accessible from LAN only
- name: internal
  protocol: layer2
  addresses:
  - 192.168.0.5/32
";

fn read(text: &str, dialect: Dialect) -> Result<Declarations, Malformed> {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some("arpeggio-system".to_owned());
    object.metadata.name = Some("arpeggio".to_owned());
    object.data = Some(BTreeMap::from([("config".to_owned(), text.to_owned())]));
    parse(&object, "config", dialect)
}

/// A pool named `a` with these lines in addition, each of them indented here.
fn pool_with(lines: &str) -> Declarations {
    let text =
        format!("address-pools:\n- name: a\n  {lines}\n- name: good\n  addresses: [10.9.0.0/24]\n");
    read(&text, Dialect::Ours).unwrap()
}

#[test]
fn the_example_is_read() {
    let found = read(EXAMPLE, Dialect::Ours).unwrap();
    let pools: Vec<&Pool> = found.pools.iter().map(|it| it.pool.as_ref().unwrap()).collect();
    let range = |text: &str| vec![text.parse().unwrap()];
    assert_eq!(*pools[0], Pool::new("external".into(), range("192.168.0.3")));
    assert_eq!(*pools[1], Pool::new("internal".into(), range("192.168.0.5")));
    let origins: Vec<String> = found.pools.iter().map(|it| it.origin.to_string()).collect();
    assert_eq!(origins[1], "ConfigMap arpeggio-system/arpeggio, line 9");
    assert_eq!(found.remarks, []);
}

#[test]
fn every_key_counts() {
    let found = pool_with(
        "auto-assign: false\n  avoid-buggy-ips: true\n  addresses: [10.0.0.1, fd00::/64]",
    );
    let pool = found.pools[0].pool.as_ref().unwrap();
    assert_eq!((pool.auto_assign, pool.avoid_buggy_ips, pool.ranges.len()), (false, true, 2));
}

#[test]
fn spread_is_a_rule_for_all_services_and_a_wrong_word_disables_the_pool() {
    let declared = |lines: &str| {
        let pool = pool_with(&format!("addresses: [10.0.0.1]\n  {lines}")).pools.swap_remove(0);
        pool.pool.map(|_| pool.announcement).map_err(|error| error.to_string())
    };
    let nodes = AnnounceRule { spread: Spread::Nodes, ..AnnounceRule::default() };
    let table = [
        ("spread: nodes", Announcement::ByRules(vec![nodes])),
        ("spread: none", Announcement::Everywhere),
        ("spread:", Announcement::Everywhere),
        ("spread: none\n  routed: true", Announcement::Routed),
    ];
    for (lines, expected) in table {
        assert_eq!(declared(lines), Ok(expected), "{lines}");
    }
    let table = [
        ("spread: true", "spread \"true\" at line 4, column 11 is not known: write nodes or none"),
        ("spread: [nodes]", "spread at line 4, column 11 must be nodes or none"),
        ("spread: nodes\n  routed: true", "remove one of both"),
    ];
    for (lines, message) in table {
        let error = declared(lines).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
    let theirs = "address-pools:\n- name: a\n  addresses: [10.0.0.1/32]\n  spread: nodes\n";
    let found = read(theirs, Dialect::MetalLb).unwrap();
    let error = found.pools[0].pool.as_ref().unwrap_err().to_string();
    assert!(error.contains("unknown key \"spread\""), "{error}");
}

#[test]
fn a_bad_entry_disables_only_itself_and_says_where() {
    let table = [
        ("addresses: []", "it has no addresses"),
        ("protocol: layer2", "it has no addresses"),
        ("addresses: 10.0.0.1", "addresses at line 3, column 14 must be a list"),
        ("addresses: [7]", "address 1 of 1: \"7\""),
        ("addresses: [~]", "the address at line 3, column 15 is none"),
        ("addresses: [[]]", "the address at line 3, column 15 is none"),
        ("addresses:", "it has no addresses"),
        ("addresses: [10.0.0.1/24]", "did you mean 10.0.0.1/32 or 10.0.0.0/24?"),
        (
            "protocol: bgp\n  addresses: [10.0.0.1]",
            "protocol \"bgp\" at line 3, column 13 is not supported",
        ),
        (
            "addresses: [10.0.0.1]\n  auto-asign: no",
            "unknown key \"auto-asign\" at line 4, column 3",
        ),
        (
            "addresses: [10.0.0.1]\n  auto-assign: maybe",
            "auto-assign at line 4, column 16 must be true",
        ),
        ("addresses: [10.0.0.1]\n  bgp-advertisements: []", "unknown key \"bgp-advertisements\""),
    ];
    for (lines, message) in table {
        let found = pool_with(lines);
        let error = found.pools[0].pool.as_ref().unwrap_err();
        assert_eq!(error.pool.as_str(), "a");
        assert!(error.to_string().contains(message), "{error}");
        assert!(found.pools[1].pool.is_ok(), "{lines}");
    }
}

#[test]
fn names_that_no_annotation_could_say_are_refused() {
    let table = [
        ("- addresses: [10.0.0.1]", "it has no name"),
        ("- name: ''", "is empty"),
        ("- name:", "is empty"),
        ("- name: null", "is empty"),
        ("- name: [a]", "must be one word"),
        ("-", "must have the keys name and addresses"),
        ("- name: a,b", "has a comma"),
        ("- name: ipv4=a", "an equals sign"),
        ("- external", "must have the keys name and addresses"),
    ];
    for (entry, message) in table {
        let found = read(&format!("address-pools:\n{entry}\n"), Dialect::Ours).unwrap();
        let error = found.pools[0].pool.as_ref().unwrap_err().to_string();
        assert!(error.contains(message), "{entry}: {error}");
        assert_eq!(found.has_nameless, !error.contains("a comma"), "{entry}");
    }
}

#[test]
fn names_that_yaml_takes_for_something_else_are_read_as_they_stand() {
    let names = [
        "1",
        "1.0",
        "0x10",
        "1e3",
        "010",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "True",
        "'null'",
        "\"~\"",
        "2022-01-01",
        "1_000",
        ".5",
        "-1",
        "infinity",
        "nan",
        ".inf",
        "-.INF",
        ".NaN",
        "1e400",
    ];
    for name in names {
        for after in ["", " # a comment"] {
            let text = format!(
                "address-pools:\n- name: {name}{after}\n  protocol: layer2\n  addresses: [10.0.0.1/32]\n"
            );
            let found = read(&text, Dialect::MetalLb).unwrap();
            let pool = found.pools[0].pool.as_ref().unwrap();
            assert_eq!(pool.name.as_str(), name.trim_matches(['\'', '"']), "{text}");
        }
    }
    let found = read(
        "address-pools:\n- &a {name: &n 7, addresses: [10.0.0.1]}\n- {name: *n, addresses: [10.0.0.2]}\n",
        Dialect::Ours,
    );
    let names: Vec<String> = found.unwrap().pools.iter().map(|it| it.name().to_string()).collect();
    assert_eq!(names, ["7", "7"]);
}

#[test]
fn what_metallb_reads_in_a_switch_is_read() {
    let table = [
        ("true", true),
        ("yes", true),
        ("on", true),
        ("y", true),
        ("Yes", true),
        ("ON", true),
        ("false", false),
        ("no", false),
        ("off", false),
        ("n", false),
        ("~", true),
        ("", true),
    ];
    for (word, on) in table {
        let found = pool_with(&format!("addresses: [10.0.0.1]\n  auto-assign: {word}"));
        assert_eq!(found.pools[0].pool.as_ref().unwrap().auto_assign, on, "{word}");
    }
    let found = pool_with("addresses: [10.0.0.1]\n  avoid-buggy-ips:\n  protocol: ~");
    assert!(!found.pools[0].pool.as_ref().unwrap().avoid_buggy_ips);
}

#[test]
fn metallb_masks_host_bits_and_wants_prefix_lengths() {
    let text = |address: &str| format!("address-pools:\n- name: a\n  addresses: [{address}]\n");
    let found = read(&text("10.0.0.1/24"), Dialect::MetalLb).unwrap();
    assert_eq!(found.pools[0].pool.as_ref().unwrap().ranges[0].to_string(), "10.0.0.0-10.0.0.255");
    assert_eq!(found.remarks[0].reason, "HostBitsMasked");
    let found = read(&text("10.0.0.1"), Dialect::MetalLb).unwrap();
    assert!(found.pools[0].pool.is_err());
}

#[test]
fn metallb_reads_the_first_document_only() {
    let text = format!("{EXAMPLE}---\naddress-pools:\n- name: 7\n  addresses: [10.0.0.1/32]\n");
    let found = read(&text, Dialect::MetalLb).unwrap();
    assert_eq!(found.pools, read(EXAMPLE, Dialect::MetalLb).unwrap().pools);
    let [remark] = found.remarks.as_slice() else { panic!("{:?}", found.remarks) };
    assert!(
        remark.message.starts_with("what begins at line 14, column 1 is ignored"),
        "{remark:?}"
    );
    let found = read(&format!("---\n~\n---\n{EXAMPLE}"), Dialect::MetalLb).unwrap();
    assert_eq!((found.pools.len(), found.remarks.len()), (2, 0));
    let later = "---\n---\naddress-pools:\n- name: 7\n  addresses: [10.0.0.1/32]\n";
    let found = read(later, Dialect::MetalLb).unwrap();
    assert_eq!(found.pools[0].name().as_str(), "7");
}

#[test]
fn what_metallb_says_of_bgp_in_a_pool_of_layer_2_is_nothing() {
    let pool = |lines: &str| {
        let text = format!(
            "address-pools:\n- name: a\n  protocol: layer2\n  addresses: [10.0.0.1/32]\n  {lines}\n"
        );
        let pool = read(&text, Dialect::MetalLb).unwrap().pools.swap_remove(0).pool;
        pool.map(drop).map_err(|error| error.to_string())
    };
    for nothing in ["[]", "", "~"] {
        assert_eq!(pool(&format!("bgp-advertisements: {nothing}")), Ok(()));
    }
    let error = pool("bgp-advertisements: [{aggregation-length: 32}]").unwrap_err();
    let place = "bgp-advertisements at line 5, column 23: addresses are announced at layer 2 only";
    assert!(error.starts_with(place), "{error}");
    let error = pool("routed: true").unwrap_err();
    assert!(error.ends_with("there are name, protocol, addresses, auto-assign, avoid-buggy-ips"));
}

#[test]
fn keys_of_others_are_named_and_ignored() {
    let found = read("peers: []\nfoo: 1\naddress-pools:\n", Dialect::Ours).unwrap();
    let said: Vec<&str> = found.remarks.iter().map(|it| it.message.as_str()).collect();
    assert!(said[0].starts_with("peers at line 1, column 1 is ignored"), "{said:?}");
    assert!(said[1].starts_with("unknown key \"foo\" at line 2, column 1 is ignored"), "{said:?}");
    assert!(found.pools.is_empty());
}

/// They would all be gone, and their addresses soon, too.
#[test]
fn a_typing_error_in_the_key_of_the_pools_is_refused() {
    for key in ["adress-pools", "Address-Pools", "address_pools", "pools"] {
        for dialect in [Dialect::Ours, Dialect::MetalLb] {
            let text = EXAMPLE.replace("address-pools:", &format!("{key}:"));
            let error = read(&text, dialect).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown key {key:?} at line")), "{error}");
            assert!(error.contains("what was read from it before stays in force"), "{error}");
        }
    }
    assert_eq!(read("peers: []\n", Dialect::MetalLb).unwrap().pools, []);
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    let table = [
        ("address-pools:\n- name: a\n   b: c\n", "line 3, column 5"),
        ("address-pools: [", "line 1, column 16"),
        ("address-pools: 3", "must be a list at line 1, column 16"),
        ("- a\n", "line 1"),
        ("a: 1\na: 2\n", "line 2, column 1"),
        ("address-pools:\n- name: a\n\taddresses: [10.0.0.1]\n", "found a tab at line 2"),
        ("address-pools:\n- name: a\n  name: b\n", "line 3, column 3"),
        ("a: 1\n---\nb: 1\n", "remove the --- before what begins at line 3, column 1"),
        ("a: 1\n...\nb: 1\n", "remove the --- before what begins at line 3, column 1"),
    ];
    for (text, place) in table {
        let error = read(text, Dialect::Ours).unwrap_err().to_string();
        assert!(error.contains(place), "{text:?}: {error}");
    }
}

#[test]
fn how_an_editor_has_saved_it_does_not_matter() {
    let plain = read(EXAMPLE, Dialect::Ours).unwrap();
    let names = |found: &Declarations| -> Vec<String> {
        found.pools.iter().map(|it| it.pool.as_ref().unwrap().name.to_string()).collect()
    };
    let ranges = |found: &Declarations| -> Vec<_> {
        found.pools.iter().map(|it| it.pool.as_ref().unwrap().ranges.clone()).collect()
    };
    let saved = [
        EXAMPLE.replace('\n', "\r\n"),
        format!("\u{feff}{EXAMPLE}"),
        format!("---\n{EXAMPLE}"),
        format!("--- # of 2021\n{EXAMPLE}...\n"),
        format!("{EXAMPLE}---\n"),
        format!("{EXAMPLE}---\n# nothing yet\n"),
        format!("---\n---\n{EXAMPLE}"),
        format!("%YAML 1.1\n---\n{EXAMPLE}"),
        EXAMPLE.replace("name: external", "\"name\": 'external'"),
        EXAMPLE.replace("  - 192.168.0.3/32", "    -   192.168.0.3/32   "),
        EXAMPLE.replace("external\n", "external \t\n"),
    ];
    for text in saved {
        let found = read(&text, Dialect::Ours).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((names(&found), ranges(&found)), (names(&plain), ranges(&plain)), "{text:?}");
    }
}

#[test]
fn pools_may_take_over_keys_of_others() {
    let text = "\
address-pools:
- &first
  name: a
  protocol: layer2
  auto-assign: false
  addresses: [10.0.0.1/32]
- <<: *first
  name: b
  addresses: [10.0.0.2/32]
";
    for dialect in [Dialect::Ours, Dialect::MetalLb] {
        let found = read(text, dialect).unwrap();
        let pool = |at: usize| found.pools[at].pool.as_ref().unwrap();
        assert_eq!((pool(0).name.as_str(), pool(1).name.as_str()), ("a", "b"));
        assert_eq!(
            (pool(1).auto_assign, pool(1).ranges[0].to_string()),
            (false, "10.0.0.2".into())
        );
    }
}

#[test]
fn nothing_means_no_pools() {
    let none = Ok(Declarations::default());
    assert_eq!(read("", Dialect::Ours), none);
    for text in ["# nothing yet\n", "~", "null", "---\nnull\n---\n", "{}"] {
        assert_eq!(read(text, Dialect::Ours), none, "{text:?}");
    }
    assert_eq!(parse(&ConfigMap::default(), "config", Dialect::Ours), none);
    let data = BTreeMap::from([("config.yaml".to_owned(), EXAMPLE.to_owned())]);
    let renamed = ConfigMap { data: Some(data), ..ConfigMap::default() };
    let error = parse(&renamed, "config", Dialect::Ours).unwrap_err().to_string();
    assert!(error.starts_with("there is no such key, but config.yaml"), "{error}");
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_rather_than_empty() {
    let stored = |key: &str| {
        let data = BTreeMap::from([(key.to_owned(), ByteString(b"\xff\xfea\0".to_vec()))]);
        let object = ConfigMap { binary_data: Some(data), ..ConfigMap::default() };
        parse(&object, "config", Dialect::Ours).unwrap_err().to_string()
    };
    assert!(stored("config").starts_with("it is in binaryData"), "{}", stored("config"));
    assert!(stored("pools").starts_with("there is no such key, but pools"), "{}", stored("pools"));
}

#[test]
fn a_config_map_may_be_as_large_as_the_api_server_takes() {
    let mut text = String::from("address-pools:\n- name: a\n  addresses:\n");
    let mut number = 0;
    while text.len() < 1_000_000 {
        let (high, low) = (number / 256, number % 256);
        writeln!(text, "  - 10.{high}.{low}.1/32").unwrap();
        number += 1;
    }
    let found = read(&text, Dialect::MetalLb).unwrap();
    assert_eq!(found.pools[0].pool.as_ref().unwrap().ranges.len(), number);
}

#[test]
fn ten_thousand_lines_are_no_problem() {
    let mut text = String::from("address-pools:\n");
    for number in 0..2_500 {
        let (high, low) = (number / 256, number % 256);
        writeln!(
            text,
            "- name: p{number}\n  protocol: layer2\n  addresses:\n  - 10.{high}.{low}.0/24"
        )
        .unwrap();
    }
    let begin = Instant::now();
    let found = read(&text, Dialect::Ours).unwrap();
    assert_eq!(found.pools.iter().filter(|it| it.pool.is_ok()).count(), 2_500);
    // About 0.3 s on a busy machine, without optimisation.
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
}
