//! XML of strangers, element by element: what is read of it is bounded in length and depth, and holds nothing that two readers
//! could see differently: no document type, no entity of its own, no attribute twice.

use std::io::{self, BufRead, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Elements in each other at most; lists of packages have six.
const MAX_DEPTH: usize = 32;
/// Attributes of an element at most.
const MAX_ATTRIBUTES: usize = 32;

/// Why a text is refused as XML.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum XmlError {
    /// It cannot be read.
    #[error("at byte {at} it is no sound XML: {why}")]
    Broken {
        /// Bytes before it, in the unpacked text.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// It has something that is not taken.
    #[error("at byte {at} it has {what}, which no such list needs")]
    Foreign {
        /// Bytes before it.
        at: u64,
        /// What it is.
        what: &'static str,
    },
    /// It is another document.
    #[error("its first element is <{found}>, and <{wanted}> is asked for")]
    Root {
        /// Which is asked for.
        wanted: &'static str,
        /// Which it is.
        found: String,
    },
    /// It ends too early.
    #[error("it ends before its end: it was cut short")]
    Short,
}

/// An element that begins.
#[derive(Debug)]
pub(crate) struct Tag {
    /// Its name as it is written, with a prefix where it has one.
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Lets so many bytes through until it is told anew: the reader holds a whole tag or text in memory.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let data = self.inner.fill_buf()?;
        if self.left == 0 && !data.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a tag or text is too long"));
        }
        Ok(data.get(..self.left).unwrap_or(data))
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.inner.consume(count);
    }
}

/// A document that is walked through from its first element to its end.
pub(crate) struct Xml<R: BufRead> {
    reader: Reader<Bounded<R>>,
    buffer: Vec<u8>,
    piece: usize,
    depth: usize,
}

/// What is wanted of what comes next, as anything else would be built in vain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Tags,
    Texts,
    Nothing,
}

/// What comes next.
enum Piece {
    /// An element begins.
    Start(Option<Tag>),
    Text(String),
    End,
    Eof,
    Nothing,
}

impl<R: BufRead> Xml<R> {
    /// Of a document no tag or text of which has more than `piece` bytes.
    pub(crate) fn new(input: R, piece: usize) -> Self {
        let mut reader = Reader::from_reader(Bounded {
            inner: input,
            left: piece,
        });
        // `<a/>` is `<a></a>`.
        reader.config_mut().expand_empty_elements = true;
        Self {
            reader,
            buffer: Vec::new(),
            piece,
            depth: 0,
        }
    }

    /// Enters the first element.
    pub(crate) fn root(&mut self, wanted: &'static str) -> Result<Tag, XmlError> {
        let tag = self.child()?.ok_or(XmlError::Short)?;
        if tag.name == wanted {
            return Ok(tag);
        }
        Err(XmlError::Root {
            wanted,
            found: tag.name,
        })
    }

    /// Enters the next element inside the one that was entered last, or leaves that one when there is no more.
    pub(crate) fn child(&mut self) -> Result<Option<Tag>, XmlError> {
        loop {
            match self.next(Wanted::Tags)? {
                Piece::Start(tag) => return Ok(tag),
                Piece::End => return Ok(None),
                Piece::Eof => return Err(XmlError::Short),
                Piece::Text(_) | Piece::Nothing => {}
            }
        }
    }

    /// The text of the element that was entered last, which is left; no element may be in it.
    pub(crate) fn text(&mut self) -> Result<String, XmlError> {
        let mut out = String::new();
        loop {
            match self.next(Wanted::Texts)? {
                Piece::Text(text) if out.len().saturating_add(text.len()) > self.piece => {
                    return Err(self.broken("a tag or text is too long"));
                }
                Piece::Text(text) => out.push_str(&text),
                Piece::Start(_) => return Err(self.foreign("an element where there is text")),
                Piece::End => return Ok(out.trim().to_owned()),
                Piece::Eof => return Err(XmlError::Short),
                Piece::Nothing => {}
            }
        }
    }

    /// Leaves the element that was entered last, whatever is in it.
    pub(crate) fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if matches!(self.next(Wanted::Nothing)?, Piece::Eof) {
                return Err(XmlError::Short);
            }
        }
        Ok(())
    }

    /// Nothing but white space and comments may follow.
    pub(crate) fn end(&mut self) -> Result<(), XmlError> {
        loop {
            match self.next(Wanted::Texts)? {
                Piece::Eof => return Ok(()),
                Piece::Text(text) if text.trim().is_empty() => {}
                Piece::Nothing => {}
                Piece::Text(_) | Piece::Start(_) | Piece::End => {
                    return Err(self.foreign("something behind its last element"));
                }
            }
        }
    }

    fn at(&self) -> u64 {
        self.reader.buffer_position()
    }

    fn broken(&self, why: impl ToString) -> XmlError {
        let why = why.to_string();
        XmlError::Broken { at: self.at(), why }
    }

    fn foreign(&self, what: &'static str) -> XmlError {
        XmlError::Foreign { at: self.at(), what }
    }

    /// Reads on.
    fn next(&mut self, wanted: Wanted) -> Result<Piece, XmlError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.reader.get_mut().left = self.piece;
        let piece = match self.reader.read_event_into(&mut buffer) {
            Ok(event) => self.piece_of(&event, wanted),
            Err(error) => Err(self.broken(error)),
        }?;
        self.buffer = buffer;
        match piece {
            Piece::Start(_) if self.depth >= MAX_DEPTH => return Err(self.foreign("more elements in each other")),
            Piece::Start(_) => self.depth = self.depth.saturating_add(1),
            Piece::End => self.depth = self.depth.saturating_sub(1),
            Piece::Text(_) | Piece::Eof | Piece::Nothing => {}
        }
        Ok(piece)
    }

    fn piece_of(&self, event: &Event<'_>, wanted: Wanted) -> Result<Piece, XmlError> {
        let text = |text: Result<String, quick_xml::encoding::EncodingError>| {
            text.map(Piece::Text).map_err(|error| self.broken(error))
        };
        match event {
            Event::Start(tag) | Event::Empty(tag) if wanted == Wanted::Tags => Ok(Piece::Start(Some(self.tag(tag)?))),
            Event::Start(_) | Event::Empty(_) => Ok(Piece::Start(None)),
            Event::End(_) => Ok(Piece::End),
            Event::Eof => Ok(Piece::Eof),
            Event::Text(found) if wanted == Wanted::Texts => text(found.decode().map(String::from)),
            Event::CData(found) if wanted == Wanted::Texts => text(found.decode().map(String::from)),
            Event::Text(_) | Event::CData(_) | Event::Comment(_) | Event::Decl(_) => Ok(Piece::Nothing),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(one)) => Ok(Piece::Text(one.into())),
                Ok(None) => predefined(name)
                    .map(|one| Piece::Text(one.into()))
                    .ok_or_else(|| self.foreign("an entity of its own")),
                Err(error) => Err(self.broken(error)),
            },
            Event::DocType(_) => Err(self.foreign("a document type")),
            Event::PI(_) => Err(self.foreign("an instruction to a program")),
        }
    }

    fn tag(&self, tag: &BytesStart<'_>) -> Result<Tag, XmlError> {
        let mut attributes: Vec<(String, String)> = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| self.broken(error))?;
            if attributes.len() >= MAX_ATTRIBUTES {
                return Err(self.foreign("more attributes of one element"));
            }
            let value = attribute.unescape_value().map_err(|error| self.broken(error))?;
            let name = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
            attributes.push((name, value.into_owned()));
        }
        let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
        Ok(Tag { name, attributes })
    }
}

/// What the entities stand for that every reader knows (XML 1.0 section 4.6).
fn predefined(name: &[u8]) -> Option<char> {
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"apos" => Some('\''),
        b"quot" => Some('"'),
        _ => None,
    }
}
