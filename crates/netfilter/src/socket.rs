//! The socket.

use std::{io, mem};

use libc::{EPERM, MSG_DONTWAIT};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{
    getsockopt, setsockopt,
    sockopt::{SndBuf, SndBufForce},
};

use crate::{
    attributes,
    batch::Batch,
    error::Error,
    message::{self, BATCH_BEGIN, BATCH_END, NF_TABLES},
};

/// What one read takes: the kernel fills up to 32 KiB at a time when it lists things.
const READ: usize = 32 * 1024;
/// What the kernel keeps of the room for itself.
const OVERHEAD: usize = 32;
/// How often a list is asked for that changes while the kernel makes it.
const ATTEMPTS: usize = 5;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;

/// A socket to netfilter, in the network namespace of the thread that opened it. It owns the tables that are made by it.
#[derive(Debug)]
pub struct Netfilter {
    socket: Socket,
    port: u32,
    sequence: u32,
    /// How much the kernel takes at once.
    room: usize,
}

/// An answer of the kernel to one message.
struct Answer {
    sequence: u32,
    /// Zero: it was done.
    code: i32,
    text: Option<String>,
}

impl Netfilter {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// When the kernel has no netfilter over netlink.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        let port = socket.bind_auto().map_err(Error::Open)?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        // An error comes with its text and without the message that it is about, which may be long.
        socket.set_cap_ack(true).map_err(Error::Open)?;
        socket.set_ext_ack(true).map_err(Error::Open)?;
        let room = getsockopt(&socket, SndBuf).map_err(|error| Error::Open(error.into()))?;
        Ok(Self { socket, port, sequence: 0, room })
    }

    /// The number of the socket: no other one in the network namespace has it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Has the kernel make all changes, or none.
    ///
    /// # Errors
    ///
    /// Names the first change that the kernel refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = self.take_numbers(batch.len());
        let bytes = written(batch, first);
        self.make_room(bytes.len())?;
        match self.socket.send(&bytes, 0) {
            Err(error) if error.raw_os_error() == Some(EPERM) => return Err(Error::NotPermitted),
            other => other.map_err(Error::Socket)?,
        };
        let answers = self.answers()?;
        judge(batch, first, &answers)
    }

    /// Numbers for the messages of a batch, its beginning and its end.
    fn take_numbers(&mut self, messages: usize) -> u32 {
        let first = self.sequence.wrapping_add(1);
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.sequence = first.wrapping_add(messages).wrapping_add(1);
        first
    }

    /// A batch is one datagram, and may be larger than what a socket takes by default.
    fn make_room(&mut self, length: usize) -> Result<(), Error> {
        let wanted = length + OVERHEAD;
        if wanted <= self.room {
            return Ok(());
        }
        setsockopt(&self.socket, SndBufForce, &wanted).map_err(|error| match error {
            nix::Error::EPERM => Error::NotPermitted,
            other => Error::Socket(other.into()),
        })?;
        self.room = wanted;
        Ok(())
    }

    /// The kernel works while we send: when that returns, all answers are there.
    fn answers(&self) -> Result<Vec<Answer>, Error> {
        let mut answers = Vec::new();
        let mut buffer: Vec<u8> = Vec::with_capacity(READ);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, MSG_DONTWAIT) {
                Ok(_) => each_message(&buffer, |message| answers.extend(answer(&message))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // More errors than the socket holds: the first ones are there.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(Error::Socket(error)),
            }
        }
    }

    /// Asks for a list, and hands over what is behind the headers of each of its messages, beside what was `empty` before the first one.
    /// A list that changes while the kernel makes it may lack what is there: it is asked for again.
    pub(crate) fn list<T>(
        &mut self,
        (kind, family): (u16, u8),
        attributes: &[u8],
        empty: impl Fn() -> T,
        each: impl Fn(&mut T, &[u8]),
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let mut found = empty();
            if self.list_once(kind, family, attributes, |part| each(&mut found, part))? {
                return Ok(found);
            }
        }
        Err(Error::Interrupted)
    }

    /// Whether the list is whole.
    fn list_once(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<bool, Error> {
        let sequence = self.take_numbers(0);
        let mut request = Vec::new();
        message::write(&mut request, kind, NLM_F_DUMP, sequence, family, 0, attributes);
        self.make_room(request.len())?;
        self.socket.send(&request, 0).map_err(Error::Socket)?;
        let mut buffer: Vec<u8> = Vec::with_capacity(READ);
        let mut is_whole = true;
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Error::Socket)?,
            };
            let part = one_part(&buffer, sequence, &mut each);
            is_whole &= part.is_whole;
            if let Some(code) = part.end {
                return end_of_list(code).map(|()| is_whole);
            }
        }
    }
}

/// What one read of a list brought.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// With which code the list has come to its end.
    end: Option<i32>,
    /// Nothing has changed while the kernel made it.
    is_whole: bool,
}

fn one_part(buffer: &[u8], sequence: u32, each: &mut impl FnMut(&[u8])) -> Part {
    let mut part = Part { end: None, is_whole: true };
    each_message(buffer, |message| {
        if message.sequence_number() != sequence {
            return;
        }
        part.is_whole &= message.flags() & NLM_F_DUMP_INTR == 0;
        match message.message_type() {
            NLMSG_DONE | NLMSG_ERROR => part.end = Some(code(message.payload()).unwrap_or(0)),
            _ => message.payload().get(message::FAMILY_HEADER..).into_iter().for_each(&mut *each),
        }
    });
    part
}

fn end_of_list(code: i32) -> Result<(), Error> {
    match -code {
        0 => Ok(()),
        EPERM => Err(Error::NotPermitted),
        code => Err(Error::Socket(io::Error::from_raw_os_error(code))),
    }
}

/// A batch as it is sent. The last change asks for an answer also when all went well.
fn written(batch: &Batch, first: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    message::write(&mut bytes, BATCH_BEGIN, 0, first, 0, NF_TABLES, &[]);
    let mut sequence = first;
    for (index, message) in batch.messages().iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let flags = message.flags | if index + 1 == batch.len() { NLM_F_ACK } else { 0 };
        let attributes = message.attributes.as_bytes();
        message::write(
            &mut bytes,
            message.kind.number(),
            flags,
            sequence,
            message.family,
            0,
            attributes,
        );
    }
    message::write(&mut bytes, BATCH_END, 0, sequence.wrapping_add(1), 0, NF_TABLES, &[]);
    bytes
}

/// What the kernel's answers say of a batch.
fn judge(batch: &Batch, first: u32, answers: &[Answer]) -> Result<(), Error> {
    let Some(refusal) = answers.iter().find(|answer| answer.code != 0) else {
        return if answers.is_empty() { Err(Error::Answer("none to a batch")) } else { Ok(()) };
    };
    let position = refusal.sequence.wrapping_sub(first) as usize;
    if -refusal.code == EPERM && position == 0 {
        return Err(Error::NotPermitted);
    }
    let what = match position.checked_sub(1).and_then(|index| batch.messages().get(index)) {
        Some(message) => message.what.clone(),
        None => "make changes to nf_tables".to_owned(),
    };
    let reason = io::Error::from_raw_os_error(-refusal.code);
    Err(Error::Refused { what, reason, detail: refusal.text.clone() })
}

/// Every message in what one read brought.
fn each_message<'a>(mut bytes: &'a [u8], mut each: impl FnMut(NetlinkBuffer<&'a [u8]>)) {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        let length = (message.length() as usize).next_multiple_of(4).max(1);
        each(NetlinkBuffer::new(&bytes[..message.length() as usize]));
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

fn answer(message: &NetlinkBuffer<&[u8]>) -> Option<Answer> {
    let payload = message.payload();
    let code = code(payload).filter(|_| message.message_type() == NLMSG_ERROR)?;
    // Behind the code is the header of the message that it is about.
    let behind =
        payload.get(mem::size_of::<i32>() + 16..).filter(|_| message.flags() & NLM_F_ACK_TLVS != 0);
    let text =
        behind.and_then(|extra| attributes::find(extra, ERROR_TEXT)).and_then(attributes::text);
    Some(Answer { sequence: message.sequence_number(), code, text: text.map(str::to_owned) })
}

fn code(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().copied().map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_changed_while_the_kernel_made_it_is_not_whole() {
        let of = |sequence, flags: [u16; 2]| {
            let mut buffer = Vec::new();
            message::write(&mut buffer, 1, flags[0], sequence, 0, 0, b"abcd");
            message::write(&mut buffer, NLMSG_DONE, flags[1], sequence, 0, 0, &[]);
            let mut found = Vec::new();
            let part = one_part(&buffer, 7, &mut |it: &[u8]| found.push(it.to_vec()));
            (part.end.is_some(), part.is_whole, found.len())
        };
        assert_eq!(of(7, [0, 0]), (true, true, 1));
        assert_eq!(of(7, [NLM_F_DUMP_INTR, 0]), (true, false, 1));
        assert_eq!(of(7, [0, NLM_F_DUMP_INTR]), (true, false, 1));
        assert_eq!(of(6, [NLM_F_DUMP_INTR, 0]), (false, true, 0), "of an earlier list");
    }
}
