//! Writes classic BPF from the last instruction to the first.
//!
//! Jumps only go forward, so by the time that a jump is written its target stands and the distance
//! is known. Conditional jumps reach 255 instructions; a target further away gets an unconditional
//! jump close by, which later jumps to the same target can use too.

use super::ranges::Ranges;

/// One instruction in the kernel's layout (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation, operand width and addressing mode.
    pub code: u16,
    /// How many instructions to skip when the condition holds.
    pub jump_true: u8,
    /// How many instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand: a constant, a byte offset or a distance.
    pub operand: u32,
}

/// A value of the frame, or what the kernel knows about it. A load beyond the frame's end stops
/// the program and drops the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    width: u32,
    offset: u32,
}

impl Load {
    /// Whom the frame is for or from (`PACKET_HOST`, `PACKET_OUTGOING` and so on).
    /// What the kernel knows about a frame stands at negative offsets.
    pub(super) const PACKET_TYPE: Self =
        Self::word((libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned());

    /// The index of the interface that the frame is for, as far as the kernel has found out.
    pub(super) const INTERFACE: Self =
        Self::word((libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned());

    /// One byte.
    pub(super) const fn byte(offset: u32) -> Self {
        let width = libc::BPF_B;
        Self { width, offset }
    }

    /// Two bytes, big endian.
    pub(super) const fn half(offset: u32) -> Self {
        let width = libc::BPF_H;
        Self { width, offset }
    }

    /// Four bytes, big endian.
    pub(super) const fn word(offset: u32) -> Self {
        let width = libc::BPF_W;
        Self { width, offset }
    }
}

/// A position in the program: how many instructions follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making; each method puts instructions before those that stand already.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
}

impl Assembler {
    /// Ends the program; hands over `bytes` of the frame, 0 drops it.
    pub(super) fn ret(&mut self, bytes: u32) -> Label {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
    }

    /// Goes on at `yes` if the loaded value is `value`, else at `no`.
    pub(super) fn if_equal(&mut self, load: Load, value: u32, yes: Label, no: Label) -> Label {
        let test = self.branch(libc::BPF_JEQ, value, yes, no);
        self.load(load, test)
    }

    /// Goes on at `yes` if the loaded value is `value` or more, else at `no`.
    pub(super) fn if_at_least(&mut self, load: Load, value: u32, yes: Label, no: Label) -> Label {
        let test = self.branch(libc::BPF_JGE, value, yes, no);
        self.load(load, test)
    }

    /// Goes on at `yes` if the loaded value is within one of the ranges, else at `no`.
    pub(super) fn if_within(&mut self, load: Load, set: &Ranges, yes: Label, no: Label) -> Label {
        let mut exits = [no, yes];
        let search = self.search(&set.boundaries(), 0, &mut exits);
        self.load(load, search)
    }

    /// Goes on where the case of the loaded value says, at `otherwise` when there is none. Cases
    /// rise by value.
    pub(super) fn switch(
        &mut self,
        load: Load,
        cases: &[(u32, Label)],
        mut otherwise: Label,
    ) -> Label {
        let search = self.cases(cases, &mut otherwise);
        self.load(load, search)
    }

    /// The whole program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// A balanced binary search. Boundaries part the values into regions, numbered from `region`
    /// on, that lie outside (even) and inside (odd) of the set in turn; `exits` has the way on for
    /// both, and is changed to a nearer place with the same meaning when there is one.
    fn search(&mut self, boundaries: &[u32], region: usize, exits: &mut [Label; 2]) -> Label {
        if boundaries.is_empty() {
            let exit = &mut exits[region % 2];
            *exit = self.near(*exit);
            return *exit;
        }
        let middle = boundaries.len() / 2;
        let (lower, upper) = (&boundaries[..middle], &boundaries[middle + 1..]);
        let above = self.search(upper, region + middle + 1, exits);
        let below = self.search(lower, region, exits);
        self.branch(libc::BPF_JGE, boundaries[middle], above, below)
    }

    /// A balanced binary search; `otherwise` is changed to a nearer place as in [`Self::search`].
    fn cases(&mut self, cases: &[(u32, Label)], otherwise: &mut Label) -> Label {
        *otherwise = self.near(*otherwise);
        match cases {
            [] => *otherwise,
            [(value, label)] => self.branch(libc::BPF_JEQ, *value, *label, *otherwise),
            _ => {
                let (lower, upper) = cases.split_at(cases.len() / 2);
                let above = self.cases(upper, otherwise);
                let below = self.cases(lower, otherwise);
                self.branch(libc::BPF_JGE, upper[0].0, above, below)
            }
        }
    }

    fn load(&mut self, load: Load, next: Label) -> Label {
        if next.0 + 1 != self.reversed.len() {
            self.jump(next);
        }
        self.push(libc::BPF_LD | libc::BPF_ABS | load.width, 0, 0, load.offset)
    }

    fn branch(&mut self, condition: u32, operand: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let code = libc::BPF_JMP | libc::BPF_K | condition;
        self.push(code, self.short_distance(yes), self.short_distance(no), operand)
    }

    /// A place from where execution goes on at `target` and that a branch can reach from here,
    /// also if one more instruction comes in between.
    fn near(&mut self, target: Label) -> Label {
        if self.reversed.len() - target.0 > usize::from(u8::MAX) {
            self.jump(target)
        } else {
            target
        }
    }

    fn jump(&mut self, target: Label) -> Label {
        let distance = self.distance(target);
        self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
    }

    /// How many instructions the one to be written next has to skip to get to `target`.
    #[expect(clippy::cast_possible_truncation, reason = "no program is near four billion long")]
    fn distance(&self, target: Label) -> u32 {
        (self.reversed.len() - target.0 - 1) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "`near` keeps targets within reach")]
    fn short_distance(&self, target: Label) -> u8 {
        self.distance(target) as u8
    }

    #[expect(clippy::cast_possible_truncation, reason = "operation codes have 16 bits")]
    fn push(&mut self, code: u32, jump_true: u8, jump_false: u8, operand: u32) -> Label {
        self.reversed.push(Instruction { code: code as u16, jump_true, jump_false, operand });
        Label(self.reversed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where execution ends up from here.
    fn follow(program: &[Instruction], mut at: usize) -> u32 {
        while program[at].code == 0x05 {
            at += 1 + usize::try_from(program[at].operand).unwrap();
        }
        program[at].operand
    }

    #[test]
    fn branches_reach_any_distance() {
        for (distance, apart) in (240..270).flat_map(|it| [(it, 0), (it, 1), (it, 300)]) {
            let mut code = Assembler::default();
            let far = code.ret(1);
            for _ in 0..apart {
                code.ret(0);
            }
            let near = code.ret(2);
            for _ in 0..distance {
                code.ret(0);
            }
            for (yes, no, expected) in [(far, near, (1, 2)), (near, far, (2, 1))] {
                let mut code = Assembler { reversed: code.reversed.clone() };
                code.branch(libc::BPF_JEQ, 0, yes, no);
                let program = code.finish();
                let target = |skip: u8| follow(&program, 1 + usize::from(skip));
                let found = (target(program[0].jump_true), target(program[0].jump_false));
                assert_eq!(found, expected, "distance {distance}, {apart} apart");
            }
        }
    }
}
