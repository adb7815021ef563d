fn main() { arpeggio_lab::guard::run_if_asked();
 let lab = arpeggio_lab::Lab::start("t1".parse().unwrap(), arpeggio_lab::Options::default());
 match lab { Ok(l) => { println!("{}", l.kubectl(&["get","nodes","-o","wide"]).unwrap()); l.keep().unwrap(); } Err(e) => { eprintln!("{e}"); std::thread::sleep(std::time::Duration::from_secs(2)); } } }
