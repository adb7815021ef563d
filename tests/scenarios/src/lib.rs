//! End-to-end tests of Arpeggio in the lab.
