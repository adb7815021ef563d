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

    refused_by_the_api_server(home)?;

    // What only the controller can see becomes a condition.
    home.apply(&pool("backwards", &["192.168.1.9-192.168.1.1"]))?;
    not_ready(home, "backwards", "192.168.1.9-192.168.1.1")?;
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

/// What one object can tell about itself, each with words that say what to write instead.
fn refused_by_the_api_server(home: &Home) -> anyhow::Result<()> {
    refused(home, &pool("typo", &["192.168.0.256"]), "192.168.0.256")?;
    refused(home, &pool("empty", &[]), "addresses")?;
    refused(home, &pool("host-bits", &["192.168.1.240/24"]), "192.168.1.240/24")?;
    refused(home, &pool("families", &["10.0.0.1-fd00::1"]), "write one range for each family")?;
    let no_values = json!([{ "matchExpressions": [{ "key": "app", "operator": "In" }] }]);
    let table = [
        ("autoAsign", json!(false), "autoAsign"),
        ("excludedAddresses", json!(["192.168.1.9/24"]), "did you mean 192.168.1.9/32"),
        ("reuseCoolDownSeconds", json!(-1), "greater than or equal to 0"),
        ("allocation", json!({ "priority": -1 }), "greater than or equal to 0"),
        ("allocation", json!({ "namespaces": ["a", "a"] }), "Duplicate value"),
        ("allocation", json!({ "serviceSelectors": no_values }), "In and NotIn need values"),
        ("announce", json!([{ "interfaces": ["eth 0"] }]), "is not a name of interfaces"),
        ("announce", json!([{ "nodeSelectors": no_values }]), "In and NotIn need values"),
        (
            "announce",
            json!([{ "preferredNodes": [{ "weight": 101, "preference": {} }] }]),
            "less than or equal to 100",
        ),
    ];
    for (field, value, hint) in table {
        let mut object = pool("bad-field", &["192.168.1.1"]);
        object["spec"][field] = value;
        refused(home, &object, hint)?;
    }
    Ok(())
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

fn not_ready(home: &Home, name: &str, hint: &str) -> anyhow::Result<()> {
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
