//! What the demo says.

use std::{fmt::Display, io::IsTerminal as _};

use arpeggio_lab::LabName;

/// Begins a chapter.
pub(crate) fn chapter(title: &str) {
    let (bold, plain) =
        if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{bold}== {title}{plain}");
}

/// Says one line.
pub(crate) fn say(text: impl Display) {
    println!("   {text}");
}

/// Shows somebody else's output, set apart.
pub(crate) fn show(text: &str) {
    text.lines().for_each(|line| println!("   | {line}"));
}

/// How to go on with a lab that is left running.
pub(crate) fn farewell(lab: &LabName) -> String {
    let tool = "cargo run -q -p arpeggio-lab --";
    format!(
        "
The cluster '{lab}' is running. Ready to paste:

  {tool} kubectl --name {lab} -- get services,addresspools
  {tool} kubectl --name {lab} -- get leases -n arpeggio-system
  {tool} exec --name {lab} client -- arping -c 3 -I eth0 192.168.0.240
  {tool} exec --name {lab} internet -- curl -s http://203.0.113.1/
  {tool} exec --name {lab} router -- ip neighbour
  {tool} power-off --name {lab} node-1
  {tool} power-on --name {lab} node-1

'make clean-lab' removes it."
    )
}
