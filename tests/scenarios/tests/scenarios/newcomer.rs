//! A newcomer, who follows the pages word for word.

use std::net::SocketAddr;

use anyhow::ensure;
use arpeggio_lab::{Machine, web};
use arpeggio_scenarios::{EXCLUDE, Home, Typist, first_address, wait_for_pods};

const NAME: &str = "newcomer";

pub(crate) fn the_pages_lead_to_a_service_that_answers(home: &Home) -> anyhow::Result<()> {
    // What the newcomer has already: a program to serve. And nodes that announce nothing, as kubeadm makes them.
    home.lab.import(&[web::nginx_image()?])?;
    home.start_web(2)?;
    home.lab.kubectl(&["label", "nodes", "--all", &format!("{EXCLUDE}=")])?;

    let typist = Typist::new(home)?;
    let [install] = &typist.blocks("README.md", NAME)?[..] else { anyhow::bail!("README.md") };
    typist.types_command("arpeggio doctor --pre --skip A601")?;
    typist.types(install)?;
    let more = typist.blocks("docs/install.md", NAME)?;
    let [images, label, again, remove] = &more[..] else { anyhow::bail!("docs/install.md") };
    typist.types(images)?;
    typist.types(label)?;
    typist.types(again)?;

    home.lab.apply(&typist.objects("README.md")?)?;
    let address = home.wait_for_address("web")?;
    home.wait_for_owner(first_address())?;
    home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;
    let told = typist.types_command("arpeggio explain service web")?;
    ensure!(told.contains(&address.to_string()), "{told}");
    let told = typist.types_command("kubectl get addresspools")?;
    ensure!(told.contains("home"), "{told}");
    let told = typist.types_command("arpeggio status")?;
    ensure!(told.contains("default/web"), "{told}");
    home.wait_until("the doctor finds nothing", || {
        typist.types_command("arpeggio doctor").map(drop).map_err(|it| format!("{it:#}").into())
    })?;
    typist.types_command("arpeggio drill web --yes --no-probe")?;

    let says = typist.blocks("docs/upgrades.md", NAME)?;
    let [upgrade, restart] = &says[..] else { anyhow::bail!("docs/upgrades.md") };
    typist.types(upgrade)?;
    let before = home.speaker_on(Machine::Node(1))?;
    typist.types(restart)?;
    wait_for_pods(&home.lab, "arpeggio-system")?;
    ensure!(home.speaker_on(Machine::Node(1))? != before, "nothing was restarted");
    home.wait_for_page_at(Machine::Client, SocketAddr::new(address, 80))?;
    let told = typist.types(remove)?;
    ensure!(told.contains("released Service default/web"), "{told}");
    ensure!(home.addresses("web")?.is_empty(), "nobody answers there any more");
    Ok(())
}
