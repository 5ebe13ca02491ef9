//! Elements of an XML document, pushed in pieces of any size. No piece is kept but a tag that is not whole yet.
//!
//! It takes what tools write, not all that XML allows: a document type is passed over and must declare nothing, references are
//! the five names and numbers, and what is no UTF-8 does not end the reading.
//!
//! # Source
//! Extensible Markup Language (XML) 1.0, fifth edition.

use memchr::{memchr, memchr3};

use crate::Limits;
use crate::error::{Error, Fail, Place};

/// Longest name of an element.
const LONGEST_NAME: usize = 256;

/// What hears of elements.
pub(crate) trait Handler {
    /// An element begins; `depth` counts those around it.
    fn open(&mut self, name: &[u8], attributes: Attributes<'_>, depth: usize) -> Result<(), Fail>;
    /// Text, or a piece of it; of a CDATA section as it stands, else with references.
    fn text(&mut self, text: &[u8], is_literal: bool);
    /// An element ends.
    fn close(&mut self, name: &[u8], depth: usize) -> Result<(), Fail>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// A `<` was met, and what follows is not known yet.
    Markup,
    /// Within a tag, or a document type; within a quotation when it is not 0.
    Tag {
        quote: u8,
    },
    /// Within a comment, an instruction or a CDATA section, which ends with `count` of `mark` and `>`; `held` of them were met.
    Until {
        mark: u8,
        count: usize,
        held: usize,
    },
}

const COMMENT: State = State::Until { mark: b'-', count: 2, held: 0 };
const INSTRUCTION: State = State::Until { mark: b'?', count: 1, held: 0 };
const CDATA: State = State::Until { mark: b']', count: 2, held: 0 };

/// Cuts a document into tags and text.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    state: State,
    /// The beginning of a tag whose end has not come.
    carry: Vec<u8>,
    /// Names of the open elements, one after the other, and where each begins.
    names: Vec<u8>,
    starts: Vec<usize>,
    place: Place,
    is_over: bool,
    limits: Limits,
}

impl Tokenizer {
    pub(crate) fn new(limits: Limits) -> Self {
        let (names, starts) = (Vec::new(), Vec::new());
        Self { state: State::Text, carry: Vec::new(), names, starts, place: Place::START, is_over: false, limits }
    }

    /// Takes the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8], handler: &mut impl Handler) -> Result<(), Error> {
        let mut at = 0;
        while at < piece.len() {
            match self.step(&piece[at..], handler) {
                Ok(used) => at += used,
                Err(fail) => return Err(fail.at(self.place.after(&piece[..at]))),
            }
        }
        self.place = self.place.after(piece);
        if self.place.offset > self.limits.total_bytes {
            return Err(Error::TooLarge { place: self.place, what: "it is too large", limit: self.limits.total_bytes });
        }
        Ok(())
    }

    /// The document ends here.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        let what = match self.starts.last() {
            Some(start) => format!("it ends within <{}>", String::from_utf8_lossy(&self.names[*start..])),
            None if !self.is_over => "it has no element".to_owned(),
            None if self.state != State::Text => "it ends within a tag or comment".to_owned(),
            None => return Ok(()),
        };
        Err(Error::Broken { place: self.place, what })
    }

    /// Goes one step on; how many bytes it used. Only to look at markup it uses none, and that is a step to another state.
    fn step(&mut self, rest: &[u8], handler: &mut impl Handler) -> Result<usize, Fail> {
        match self.state {
            State::Text => {
                let end = memchr(b'<', rest);
                let text = &rest[..end.unwrap_or(rest.len())];
                self.text(text, false, handler)?;
                if end.is_some() {
                    self.state = State::Markup;
                }
                Ok(text.len())
            }
            State::Markup if self.carry.is_empty() => self.begin(rest, handler),
            State::Markup => {
                self.carry.extend(rest.first());
                if let Some(next) = classify(&self.carry)? {
                    self.state = next;
                    if !matches!(next, State::Tag { .. }) {
                        self.carry.clear();
                    }
                }
                Ok(1)
            }
            State::Tag { mut quote } => {
                let end = end_of_tag(rest, &mut quote);
                let part = &rest[..end.unwrap_or(rest.len())];
                self.state = State::Tag { quote };
                self.carry.extend_from_slice(part);
                self.measured(self.carry.len())?;
                if end.is_none() {
                    return Ok(part.len());
                }
                let mut carry = std::mem::take(&mut self.carry);
                let told = self.tag(&carry[1..], handler);
                carry.clear();
                self.carry = carry;
                told?;
                Ok(part.len() + 1)
            }
            State::Until { mark, count, held } => self.until((mark, count, held), rest, handler),
        }
    }

    /// Begins markup whose `<` is the first byte; a tag that is whole here is not copied.
    fn begin(&mut self, rest: &[u8], handler: &mut impl Handler) -> Result<usize, Fail> {
        let next = classify(rest)?;
        if let (Some(State::Tag { mut quote }), Some(inner)) = (next, rest.get(1..)) {
            if let Some(end) = end_of_tag(inner, &mut quote) {
                self.measured(end)?;
                self.tag(&inner[..end], handler)?;
                return Ok(end + 2);
            }
            self.state = State::Tag { quote };
        } else if let Some(until) = next {
            self.state = until;
            return Ok(if until == COMMENT {
                4
            } else if until == CDATA {
                9
            } else {
                2
            });
        }
        self.measured(rest.len())?;
        self.carry.extend_from_slice(rest);
        Ok(rest.len())
    }

    fn measured(&self, length: usize) -> Result<(), Fail> {
        let most = self.limits.piece_bytes;
        if length > most { Err(Fail::TooLarge("a tag is too long", most)) } else { Ok(()) }
    }

    /// A tag without its brackets.
    fn tag(&mut self, tag: &[u8], handler: &mut impl Handler) -> Result<(), Fail> {
        self.state = State::Text;
        match tag {
            [b'!', ..] => declaration(tag, self.starts.is_empty() && !self.is_over),
            [b'/', name @ ..] => {
                let name = name.trim_ascii_end();
                let Some(start) = self.starts.pop() else { return Err(unopened(name)) };
                if self.names[start..] != *name {
                    return Err(Fail::broken(format!("</{}> closes <{}>", shown(name), shown(&self.names[start..]))));
                }
                self.names.truncate(start);
                self.closed(name, handler)
            }
            _ => {
                let (tag, is_empty) = tag.strip_suffix(b"/").map_or((tag, false), |tag| (tag, true));
                let end = tag.iter().position(u8::is_ascii_whitespace).unwrap_or(tag.len());
                let (name, attributes) = tag.split_at(end);
                if name.is_empty() || name.len() > LONGEST_NAME || name.contains(&b'<') {
                    return Err(Fail::broken(format!("<{}> is no element", shown(name))));
                }
                let depth = self.starts.len();
                if depth == 0 && self.is_over {
                    return Err(Fail::broken(format!("<{}> follows the end of the document", shown(name))));
                }
                if depth >= self.limits.depth {
                    return Err(Fail::TooLarge("elements lie too deep within each other", self.limits.depth));
                }
                handler.open(name, Attributes(attributes), depth)?;
                if is_empty {
                    return self.closed(name, handler);
                }
                self.starts.push(self.names.len());
                self.names.extend_from_slice(name);
                Ok(())
            }
        }
    }

    fn closed(&mut self, name: &[u8], handler: &mut impl Handler) -> Result<(), Fail> {
        self.is_over = self.starts.is_empty();
        handler.close(name, self.starts.len())
    }

    fn text(&self, text: &[u8], is_literal: bool, handler: &mut impl Handler) -> Result<(), Fail> {
        if !self.starts.is_empty() {
            handler.text(text, is_literal);
        } else if is_literal || !text.trim_ascii().is_empty() {
            return Err(Fail::broken("there is text outside of the document's element"));
        }
        Ok(())
    }

    /// Looks for the end of a comment, an instruction or a CDATA section, whose text is told.
    fn until(&mut self, (mark, count, held): (u8, usize, usize), rest: &[u8], handler: &mut impl Handler) -> Result<usize, Fail> {
        let is_told = mark == b']';
        let marks = |bytes: &[u8]| bytes.iter().rev().take(count).take_while(|b| **b == mark).count();
        let Some(at) = memchr(b'>', rest) else {
            // Marks at the end of the piece may belong to the end of the section: they are told when it is known.
            let all = marks(rest);
            let now = if all == rest.len() { (held + all).min(count) } else { all };
            if is_told {
                let told = held + rest.len() - now;
                let of_before = told.min(held);
                self.text(&b"]]"[..of_before], true, handler)?;
                self.text(&rest[..told - of_before], true, handler)?;
            }
            self.state = State::Until { mark, count, held: now };
            return Ok(rest.len());
        };
        let before = &rest[..at];
        let all = marks(before);
        let ends = all == count || (all == before.len() && held + all >= count);
        if is_told {
            let told = held + before.len() - if ends { count } else { 0 };
            let of_before = told.min(held);
            self.text(&b"]]"[..of_before], true, handler)?;
            self.text(&before[..told - of_before], true, handler)?;
            if !ends {
                self.text(b">", true, handler)?;
            }
        }
        self.state = if ends { State::Text } else { State::Until { mark, count, held: 0 } };
        Ok(at + 1)
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(60).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn unopened(name: &[u8]) -> Fail {
    Fail::broken(format!("</{}> closes nothing", shown(name)))
}

/// A document type may name a file of declarations, which nobody opens; what it declares itself is refused, for names that stand
/// for texts grow without measure.
fn declaration(tag: &[u8], is_first: bool) -> Result<(), Fail> {
    if !is_first {
        return Err(Fail::broken("a document type stands at the beginning only"));
    }
    let mut quote = 0;
    for byte in tag {
        match byte {
            b'"' | b'\'' if quote == 0 => quote = *byte,
            _ if *byte == quote => quote = 0,
            b'[' if quote == 0 => return Err(Fail::broken("a document type that declares entities or elements is refused")),
            _ => {}
        }
    }
    Ok(())
}

/// What begins with this `<`; `None` when there are too few bytes to know.
fn classify(head: &[u8]) -> Result<Option<State>, Fail> {
    const OPENINGS: [(&[u8], State); 3] = [(b"<!--", COMMENT), (b"<![CDATA[", CDATA), (b"<!DOCTYPE", State::Tag { quote: 0 })];
    match head.get(1) {
        None => Ok(None),
        Some(b'?') => Ok(Some(INSTRUCTION)),
        Some(b'!') => {
            let fits = |(opening, _): &&(&[u8], State)| {
                let length = head.len().min(opening.len());
                head[..length] == opening[..length]
            };
            match OPENINGS.iter().find(fits) {
                Some((opening, state)) => Ok((head.len() >= opening.len()).then_some(*state)),
                None => Err(Fail::broken("<! begins neither a comment nor CDATA")),
            }
        }
        Some(byte) if byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'_' | b':' | 0x80..) => Ok(Some(State::Tag { quote: 0 })),
        Some(_) => Err(Fail::broken("< stands in a text; it is written &lt;")),
    }
}

/// Where a tag ends; `quote` is the quotation that it stands in, 0 for none.
fn end_of_tag(bytes: &[u8], quote: &mut u8) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let found = if *quote == 0 { memchr3(b'>', b'"', b'\'', rest)? } else { memchr(*quote, rest)? };
        if *quote != 0 {
            *quote = 0;
        } else if rest[found] == b'>' {
            return Some(at + found);
        } else {
            *quote = rest[found];
        }
        at += found + 1;
    }
}

/// The attributes of a tag: names and raw values.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'t>(&'t [u8]);

impl<'t> Iterator for Attributes<'t> {
    type Item = Result<(&'t [u8], &'t [u8]), Fail>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        self.0 = b"";
        let parts = || {
            let equals = memchr(b'=', rest)?;
            let (name, value) = (rest[..equals].trim_ascii_end(), rest[equals + 1..].trim_ascii_start());
            let quote = *value.first().filter(|quote| matches!(quote, b'"' | b'\''))?;
            let end = memchr(quote, &value[1..])? + 1;
            Some((name, &value[1..end], &value[end + 1..]))
        };
        let Some((name, value, after)) = parts() else {
            return Some(Err(Fail::broken(format!("an attribute has no value in quotes: {}", shown(rest)))));
        };
        if name.is_empty() || name.iter().any(|b| b.is_ascii_whitespace() || matches!(b, b'<' | b'"' | b'\'')) {
            return Some(Err(Fail::broken(format!("{} is no name of an attribute", shown(name)))));
        }
        self.0 = after;
        Some(Ok((name, value)))
    }
}

#[cfg(test)]
mod tests;
