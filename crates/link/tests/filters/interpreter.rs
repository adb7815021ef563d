//! An interpreter of the instructions that our packet filters use.

use arpeggio_link::filter::Instruction;

/// A frame and what the kernel knows about it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) packet_type: u32,
    /// The index of the interface that it is for.
    pub(crate) interface: u32,
}

/// The interface that the tests' filters are for.
pub(crate) const HERE: u32 = 7;

/// `PACKET_HOST`, `PACKET_BROADCAST`, `PACKET_MULTICAST`.
pub(crate) const FOR_US: std::ops::RangeInclusive<u32> = 0..=2;
/// `PACKET_OTHERHOST`, `PACKET_OUTGOING`.
pub(crate) const NOT_FOR_US: std::ops::RangeInclusive<u32> = 3..=4;

/// The value that a program returns, and how many instructions that took.
pub(crate) fn run(program: &[Instruction], frame: &Received) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for step in 1..=program.len() {
        let it = program[at];
        at += 1;
        match it.code {
            0x06 => return (it.operand, step),                  // ret #k
            0x05 => at += usize::try_from(it.operand).unwrap(), // ja
            0x15 => at += jump(it, accumulator == it.operand),  // jeq #k
            0x35 => at += jump(it, accumulator >= it.operand),  // jge #k
            0x20 | 0x28 | 0x30 => match load(frame, it) {
                // ld [k], ldh [k], ldb [k]
                Some(value) => accumulator = value,
                None => return (0, step),
            },
            code => panic!("instruction {code:#x} is not one that we use"),
        }
    }
    panic!("the program does not end");
}

fn jump(it: Instruction, condition: bool) -> usize {
    usize::from(if condition { it.jump_true } else { it.jump_false })
}

fn load(frame: &Received, it: Instruction) -> Option<u32> {
    match it.operand.cast_signed() {
        -0x0ffc => return Some(frame.packet_type), // SKF_AD_PKTTYPE
        -0x0ff8 => return Some(frame.interface),   // SKF_AD_IFINDEX
        _ => {}
    }
    let width = match it.code {
        0x30 => 1,
        0x28 => 2,
        _ => 4,
    };
    let start = usize::try_from(it.operand).unwrap();
    let bytes = frame.bytes.get(start..start + width)?;
    Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

pub(crate) fn accepts(program: &[Instruction], frame: &Received) -> bool {
    run(program, frame).0 != 0
}
