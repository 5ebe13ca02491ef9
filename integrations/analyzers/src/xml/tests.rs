#![expect(clippy::format_push_string, reason = "a test")]

use proptest::prelude::*;
use quick_xml::events::Event;

use super::{Attributes, Handler, Tokenizer};
use crate::Limits;
use crate::error::Fail;
use crate::text::decode;

/// What a document says, one line a thing; pieces of text are joined.
#[derive(Debug, Default)]
struct Told {
    lines: Vec<String>,
    text: Vec<u8>,
}

impl Told {
    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.lines.push(format!("text {:?}", decode(&std::mem::take(&mut self.text))));
        }
    }
}

impl Handler for Told {
    fn open(&mut self, name: &[u8], attributes: Attributes<'_>, depth: usize) -> Result<(), Fail> {
        self.flush();
        let mut line = format!("{depth} <{}", String::from_utf8_lossy(name));
        for attribute in attributes {
            let (name, value) = attribute?;
            line += &format!(" {}={:?}", String::from_utf8_lossy(name), decode(value));
        }
        self.lines.push(line);
        Ok(())
    }

    fn text(&mut self, text: &[u8], is_literal: bool) {
        // Kept raw, so that a reference or a character that two pieces share is whole again.
        self.text.extend(if is_literal { literal(text) } else { text.to_vec() });
    }

    fn close(&mut self, name: &[u8], depth: usize) -> Result<(), Fail> {
        self.flush();
        self.lines.push(format!("{depth} </{}", String::from_utf8_lossy(name)));
        Ok(())
    }
}

fn literal(text: &[u8]) -> Vec<u8> {
    text.iter().flat_map(|byte| if *byte == b'&' { b"&amp;".to_vec() } else { vec![*byte] }).collect()
}

fn told(document: &[u8], piece: usize, limits: Limits) -> Result<Vec<String>, String> {
    let (mut told, mut tokenizer) = (Told::default(), Tokenizer::new(limits));
    for piece in document.chunks(piece.max(1)) {
        tokenizer.feed(piece, &mut told).map_err(|error| error.to_string())?;
    }
    tokenizer.finish().map_err(|error| error.to_string())?;
    Ok(told.lines)
}

/// The same by a parser of others.
fn oracle(document: &[u8]) -> Vec<String> {
    let (mut told, mut depth) = (Told::default(), 0_usize);
    let mut reader = quick_xml::Reader::from_reader(document);
    let open = |told: &mut Told, tag: &quick_xml::events::BytesStart<'_>, depth| {
        told.flush();
        let mut line = format!("{depth} <{}", String::from_utf8_lossy(tag.name().as_ref()));
        for attribute in tag.attributes() {
            let attribute = attribute.expect("an attribute");
            line += &format!(" {}={:?}", String::from_utf8_lossy(attribute.key.as_ref()), decode(&attribute.value));
        }
        told.lines.push(line);
    };
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(tag) => {
                open(&mut told, &tag, depth);
                depth += 1;
            }
            Event::Empty(tag) => {
                open(&mut told, &tag, depth);
                told.lines.push(format!("{depth} </{}", String::from_utf8_lossy(tag.name().as_ref())));
            }
            Event::End(tag) => {
                depth -= 1;
                told.flush();
                told.lines.push(format!("{depth} </{}", String::from_utf8_lossy(tag.name().as_ref())));
            }
            Event::Text(text) if depth > 0 => told.text.extend_from_slice(&text),
            Event::GeneralRef(name) => told.text.extend([&b"&"[..], &name, b";"].concat()),
            Event::CData(text) => told.text.extend(literal(&text)),
            Event::Eof => return told.lines,
            _ => {}
        }
    }
}

const DOCUMENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE a SYSTEM "http://x/a>b.dtd">
<!-- a > b -- not yet ->, <c> -->
<a x="1 > 2" y='"' z = "&lt;&#65;">
  t&amp;x <b/><c
   d="e"
  ></c  ><![CDATA[ <no> & ]] > ]]]]><![CDATA[>]]>
  <?php echo "?" > ?><ä:ö ä="ü"/>é
</a>
<!-- end --->
"#;

#[test]
fn a_document_is_the_same_in_pieces_of_any_size_and_as_others_read_it() {
    let document = DOCUMENT.replace("<!-- end --->", "<!-- end -->");
    let whole = told(document.as_bytes(), usize::MAX, Limits::default()).expect("a document");
    assert_eq!(whole, oracle(document.as_bytes()));
    for piece in 1..40 {
        assert_eq!(told(document.as_bytes(), piece, Limits::default()).as_ref(), Ok(&whole), "in pieces of {piece}");
    }
}

#[test]
fn what_is_broken_is_told_with_its_place() {
    let limits = Limits { depth: 3, piece_bytes: 40, total_bytes: 300, ..Limits::default() };
    for (document, error) in [
        ("", "line 1, byte 0: it has no element"),
        ("  \n", "line 2, byte 3: it has no element"),
        ("x", "line 1, byte 0: there is text outside of the document's element"),
        ("<a>\n<b>\n</a>", "line 3, byte 8: </a> closes <b>"),
        ("<a>\n\n<b>", "line 3, byte 8: it ends within <b>"),
        ("<a/>\n</a>", "line 2, byte 5: </a> closes nothing"),
        ("<a/><b/>", "line 1, byte 4: <b> follows the end of the document"),
        ("<a/>tail", "line 1, byte 4: there is text outside of the document's element"),
        ("<a/><![CDATA[x]]>", "line 1, byte 13: there is text outside of the document's element"),
        ("<a x></a>", "line 1, byte 0: an attribute has no value in quotes: x"),
        ("<a x=1></a>", "line 1, byte 0: an attribute has no value in quotes: x=1"),
        ("<a <b/>", "line 1, byte 0: an attribute has no value in quotes: <b"),
        ("<a>\n1 < 2</a>", "line 2, byte 6: < stands in a text; it is written &lt;"),
        ("<>", "line 1, byte 0: < stands in a text; it is written &lt;"),
        ("<a/><!-- x", "line 1, byte 10: it ends within a tag or comment"),
        ("<a/><b", "line 1, byte 6: it ends within a tag or comment"),
        ("<a><!ENTITY b 'c'></a>", "line 1, byte 3: <! begins neither a comment nor CDATA"),
        ("<a><!DOCTYPE b></a>", "line 1, byte 3: a document type stands at the beginning only"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "line 1, byte 0: a document type that declares entities or elements is refused"),
        ("<a><a><a><a>", "line 1, byte 9: elements lie too deep within each other; the limit is 3"),
        ("<a b='0123456789012345678901234567890123456789'/>", "line 1, byte 0: a tag is too long; the limit is 40"),
        ("<a b='01234567890123456789012345678901234567890123", "line 1, byte 0: a tag is too long; the limit is 40"),
    ] {
        let found = told(document.as_bytes(), usize::MAX, limits);
        assert_eq!(found, Err(format!("cannot read the report at {error}")), "{document}");
        for piece in 1..document.len() {
            assert!(told(document.as_bytes(), piece, limits).is_err(), "{document} in pieces of {piece}");
        }
    }
    let long = format!("<a>{}</a>", " ".repeat(300));
    let error = told(long.as_bytes(), 50, limits).expect_err("too large");
    assert!(error.ends_with("it is too large; the limit is 300"), "{error}");
}

/// Pieces of documents, well-formed or not.
fn anything() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "<a>",
        "</a>",
        "<b x='1'>",
        "</b>",
        "<c/>",
        "t",
        "]",
        "]]",
        "]]>",
        "-",
        "--",
        "-->",
        "<!--",
        "<![CDATA[",
        "?",
        "?>",
        "<?x",
        "<",
        ">",
        "&amp;",
        "\"",
        "'",
        "\n",
        "<!DOCTYPE a>",
        "=",
        "é",
    ]);
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_change_nothing(parts in anything(), piece in 1_usize..12) {
        let document = format!("<a>{parts}</a>");
        let (whole, cut) = (told(document.as_bytes(), usize::MAX, Limits::default()), told(document.as_bytes(), piece, Limits::default()));
        prop_assert_eq!(whole.is_ok(), cut.is_ok());
        if let (Ok(whole), Ok(cut)) = (whole, cut) {
            prop_assert_eq!(whole, cut);
        }
    }
}
