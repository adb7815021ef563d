//! Pools that cannot be used.

use anyhow::ensure;
use arpeggio_scenarios::{Home, POOL, pool, service};
use serde_json::{Value, json};

pub(crate) fn bad_pools_are_refused_or_marked_and_the_rest_goes_on(
    home: &Home,
) -> anyhow::Result<()> {
    home.add_pool()?;
    home.apply(&service("web", "arpeggio.dev/address-pool", POOL))?;
    let address = home.wait_for_address("web")?;

    judged_by_the_api_server(home)?;
    broken_lines(home)?;

    // What only the controller can see becomes a condition.
    home.apply(&pool("backwards", &["192.168.1.9-192.168.1.1"]))?;
    not_ready(home, "backwards", "192.168.1.9-192.168.1.1")?;
    home.apply(&pool("host-bits", &["fd00::1/64"]))?;
    not_ready(home, "host-bits", "did you mean fd00::1/128 or fd00::/64?")?;
    home.apply(&pool("overlap", &["192.168.0.248/29"]))?;
    not_ready(home, "overlap", POOL)?;

    home.apply(&service("next", "arpeggio.dev/address-pool", POOL))?;
    let next = home.wait_for_address("next")?;
    ensure!(next != address, "allocation goes on");
    ensure!(home.wait_for_address("web")? == address, "nothing has changed for the first");
    let condition = ready(home, POOL)?;
    ensure!(condition["status"] == "True", "the good pool stays good: {condition}");
    Ok(())
}

/// What a user writes begins no line of its own, in what others are told and in the log.
fn broken_lines(home: &Home) -> anyhow::Result<()> {
    home.apply(&service("lines", "arpeggio.dev/address-pool", "none\nERROR all is lost"))?;
    let event = home.wait_for_event("lines", "AllocationFailed")?;
    ensure!(!event.note.contains('\n') && event.note.contains("all is lost"), "{event:?}");
    let conditions = home.conditions("lines")?;
    ensure!(!conditions.iter().any(|it| it.contains('\n')), "{conditions:?}");
    let controllers = "-lapp.kubernetes.io/component=controller";
    let log = home.lab.kubectl(&["logs", "-n", "arpeggio-system", "--tail=-1", controllers])?;
    let begun = log.lines().find(|line| line.trim_start().starts_with("ERROR all"));
    ensure!(begun.is_none(), "{begun:?}");
    home.lab.kubectl(&["delete", "service", "lines"])?;
    Ok(())
}

/// What one object can tell about itself: good ones are accepted, bad ones refused, each with words that say what to write
/// instead.
pub(crate) fn judged_by_the_api_server(home: &Home) -> anyhow::Result<()> {
    for item in GOOD_ADDRESSES {
        let object = pool("good-field", &[item]).to_string();
        home.lab.kubectl_with_input(&["create", "--dry-run=server", "-f", "-"], &object)?;
    }
    for (field, value, hint) in fields().into_iter().chain(selectors()) {
        let mut object = pool("bad-field", &["192.168.1.1"]);
        object["spec"][field] = value;
        refused(home, &object, hint)?;
    }
    Ok(())
}

/// Each way to write addresses, and what is nearly refused.
const GOOD_ADDRESSES: &[&str] = &[
    "0.0.0.0",
    "255.249.199.100",
    "10.128.0.0/9",
    "192.168.1.240/28",
    "192.168.1.254/31",
    "192.168.1.255/32",
    "0.0.0.0/0",
    "192.168.1.240-192.168.1.250",
    " 192.168.1.240 - 192.168.1.250 ",
    "fd00::",
    "FD00::a",
    "1:2:3:4:5:6:7:8",
    "1::3:4:5:6:7:8",
    "1:2:3:4:5:6::8",
    "1:2:3:4:5:6:7::",
    "::1:ffff:1:2",
    "::ffff:0:1:2",
    "fd00::/64",
    "fd00::1/128",
    "fd00::1-fd00::ffff",
];

/// A value for a field of a pool, and what the refusal says.
type Refusal = (&'static str, Value, &'static str);

/// Every bound and every rule of the definition that is not about selectors.
fn fields() -> Vec<Refusal> {
    let preferred =
        |weight: i32| json!([{ "preferredNodes": [{ "weight": weight, "preference": {} }] }]);
    let namespaces = |names: Vec<String>| json!({ "namespaces": names });
    let interfaces = |names: &[&str]| json!([{ "interfaces": names }]);
    let shape = "is not an address: write a CIDR";
    vec![
        ("addresses", json!([]), "at least 1 items"),
        ("addresses", json!(many("10.0.0.1", 257)), "at most 256 items"),
        ("addresses", json!(["1".repeat(97)]), "96"),
        ("addresses", json!([""]), shape),
        ("addresses", json!(["192.168.0.256"]), shape),
        ("addresses", json!(["192.168.000.1"]), shape),
        ("addresses", json!(["::ffff:192.168.0.1"]), shape),
        ("addresses", json!(["fe80::1%eth0"]), shape),
        ("addresses", json!(["192.168.0.1 192.168.0.2"]), shape),
        ("addresses", json!(["192.168.0.0/33"]), shape),
        ("addresses", json!(["192.168.0.0/08"]), shape),
        ("addresses", json!(["192.168.0"]), shape),
        ("addresses", json!(["192.168.0.1-"]), shape),
        ("addresses", json!(["192.168.0.1-192.168.0.2-192.168.0.3"]), shape),
        ("addresses", json!(["192.168.0.1-192.168.0.8/29"]), shape),
        ("addresses", json!(["::ffff:c0a8:1"]), shape),
        ("addresses", json!(["0::0:FFFF:c0a8:1"]), shape),
        ("addresses", json!(["0:0:0:0:0:ffff::"]), shape),
        ("addresses", json!(["fd00::1-::ffff:c0a8:1"]), shape),
        ("addresses", json!(["::ffff:0:0/96"]), shape),
        ("addresses", json!(["fd00::1::2"]), shape),
        ("addresses", json!(["fd00::12345"]), shape),
        ("addresses", json!(["fd00:::1"]), shape),
        ("addresses", json!(["1:2:3:4:5:6:7"]), shape),
        ("addresses", json!(["1:2:3:4:5:6:7:8:9"]), shape),
        ("addresses", json!(["1:2:3:4::5:6:7:8"]), shape),
        ("addresses", json!(["fd00::/129"]), shape),
        (
            "addresses",
            json!(["192.168.1.240/24"]),
            "did you mean 192.168.1.240/32 or 192.168.1.0/24?",
        ),
        ("addresses", json!(["10.1.2.3/0"]), "did you mean 10.1.2.3/32 or 0.0.0.0/0?"),
        ("addresses", json!(["10.1.2.3/8"]), "did you mean 10.1.2.3/32 or 10.0.0.0/8?"),
        ("addresses", json!(["10.255.1.0/9"]), "did you mean 10.255.1.0/32 or 10.128.0.0/9?"),
        ("addresses", json!(["10.1.255.0/18"]), "did you mean 10.1.255.0/32 or 10.1.192.0/18?"),
        ("addresses", json!(["10.1.2.7/31"]), "did you mean 10.1.2.7/32 or 10.1.2.6/31?"),
        ("addresses", json!(["10.0.0.1-fd00::1"]), "write one range for each family"),
        ("addresses", json!(["fd00::1 - 10.0.0.1"]), "write one range for each family"),
        ("excludedAddresses", json!(many("10.0.0.1", 257)), "at most 256 items"),
        ("excludedAddresses", json!(["x"]), shape),
        ("excludedAddresses", json!(["192.168.1.9/24"]), "did you mean 192.168.1.9/32"),
        ("excludedAddresses", json!(["10.0.0.1-fd00::1"]), "write one range for each family"),
        ("autoAsign", json!(false), "autoAsign"),
        ("autoAssign", json!("yes"), "boolean"),
        ("avoidBuggyIPs", json!("yes"), "boolean"),
        ("conflictProbing", json!("yes"), "boolean"),
        ("reuseCoolDownSeconds", json!(-1), "greater than or equal to 0"),
        ("reuseCoolDownSeconds", json!(604_801), "less than or equal to 604800"),
        ("allocation", json!({ "priority": -1 }), "greater than or equal to 0"),
        ("allocation", namespaces(vec!["a".to_owned(); 2]), "Duplicate value"),
        ("allocation", namespaces(vec![String::new()]), "at least 1 chars long"),
        ("allocation", namespaces(vec!["a".repeat(64)]), "63"),
        ("allocation", namespaces((0..65).map(|it| it.to_string()).collect()), "at most 64 items"),
        ("announce", json!(vec![json!({}); 17]), "at most 16 items"),
        ("announce", json!([{ "nodes": [] }]), "nodes"),
        ("announce", interfaces(&["eth 0"]), "is not a name of interfaces"),
        ("announce", interfaces(&["eth/0"]), "is not a name of interfaces"),
        ("announce", interfaces(&[""]), "at least 1 chars long"),
        ("announce", interfaces(&["0123456789012345678901234567890123"]), "32"),
        ("announce", interfaces(&["eth0"; 33]), "at most 32 items"),
        ("announce", preferred(0), "greater than or equal to 1"),
        ("announce", preferred(101), "less than or equal to 100"),
        ("announce", json!([{ "preferredNodes": [{ "weight": 1 }] }]), "preference"),
    ]
}

/// Every bound and every rule of a selector, and each place where one can stand.
fn selectors() -> Vec<Refusal> {
    let expression = |key: &str, operator: &str, values: Vec<String>| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    let no_values = || expression("app", "In", Vec::new());
    let labels: serde_json::Map<String, Value> =
        (0..17).map(|it| (format!("l{it}"), json!("v"))).collect();
    let of_services = |selector: Value| json!({ "serviceSelectors": [selector] });
    vec![
        ("allocation", of_services(no_values()), "In and NotIn need values"),
        ("allocation", json!({ "namespaceSelectors": [no_values()] }), "In and NotIn need values"),
        ("announce", json!([{ "nodeSelectors": [no_values()] }]), "In and NotIn need values"),
        ("announce", json!([{ "serviceSelectors": [no_values()] }]), "In and NotIn need values"),
        (
            "announce",
            json!([{ "preferredNodes": [{ "weight": 1, "preference": no_values() }] }]),
            "In and NotIn need values",
        ),
        (
            "allocation",
            of_services(expression("app", "Exists", many("a", 1))),
            "Exists and DoesNotExist",
        ),
        ("allocation", of_services(expression("app", "Is", many("a", 1))), "Unsupported value"),
        ("allocation", of_services(expression("", "Exists", vec![])), "at least 1 chars long"),
        ("allocation", of_services(expression(&"a".repeat(318), "Exists", vec![])), "317"),
        ("allocation", of_services(expression("app", "In", many("a", 65))), "at most 64 items"),
        ("allocation", of_services(expression("app", "In", vec!["a".repeat(64)])), "63"),
        ("allocation", of_services(json!({ "matchLabels": labels })), "at most 16"),
        ("allocation", json!({ "serviceSelectors": vec![json!({}); 17] }), "at most 16 items"),
    ]
}

fn many(item: &str, count: usize) -> Vec<String> {
    vec![item.to_owned(); count]
}

/// The API server refuses the object, and its answer contains `hint`.
fn refused(home: &Home, object: &Value, hint: &str) -> anyhow::Result<()> {
    match home.apply(object) {
        Ok(()) => anyhow::bail!("{} was accepted", object["metadata"]["name"]),
        Err(error) => {
            let answer = format!("{error:#}");
            ensure!(answer.contains(hint), "the refusal does not say {hint}: {answer}");
            Ok(())
        }
    }
}

/// The condition of the pool becomes `False`, and its message contains `hint`.
pub(crate) fn not_ready(home: &Home, name: &str, hint: &str) -> anyhow::Result<()> {
    home.wait_until(&format!("pool {name} says why it is not used"), || {
        let condition = ready(home, name)?;
        let message = condition["message"].as_str().unwrap_or_default();
        if condition["status"] == "False" && message.contains(hint) {
            Ok(())
        } else {
            Err(condition.to_string().into())
        }
    })
}

fn ready(home: &Home, pool: &str) -> anyhow::Result<Value> {
    let pool = home.lab.get(&["addresspool", pool])?;
    let mut conditions = pool["status"]["conditions"].as_array().into_iter().flatten();
    Ok(conditions.find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default())
}
