//! Text as it is compared: folded characters, cut into words, or where words are not told apart by spaces into pairs of characters.
//!
//! Case, width and ligatures do not count (Unicode's compatibility forms), nor do the marks of alphabets, nor what an ʻokina was typed
//! as. What a script cannot be read without stays: vowel signs, tones, voicing marks.

use std::ops::Range;

use unicode_normalization::char::{
    canonical_combining_class, compose, decompose_compatible, is_combining_mark,
};

/// What a piece of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A word.
    Word,
    /// Two characters that stand beside each other in a run: writing without spaces.
    Pair,
    /// The last character of a run.
    Last,
}

/// Hands the folded pieces of a text to `each`, with the bytes of the text that each was made of.
pub(super) fn pieces(text: &str, each: impl FnMut(Piece, &str, Range<usize>)) {
    let mut reader = Reader { each, word: String::new(), range: 0..0, run: Vec::new() };
    for (at, c) in text.char_indices() {
        let range = at..at + c.len_utf8();
        match c {
            'a'..='z' | '0'..='9' => reader.letter(c, range),
            'A'..='Z' => reader.letter(c.to_ascii_lowercase(), range),
            '\'' | '`' => {}
            _ if c.is_ascii() => reader.end(),
            _ => reader.other(c, &range),
        }
    }
    reader.end();
}

/// The words and runs of a text, folded, with a space after each: equal for texts that only differ in what does not count.
pub(super) fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len() + 1);
    pieces(text, |piece, characters, _| match piece {
        Piece::Word => folded.extend([characters, " "]),
        Piece::Pair => folded.extend(characters.chars().next()),
        Piece::Last => folded.extend([characters, " "]),
    });
    folded
}

/// Puts pieces together. Either a word or a run is being read, never both.
struct Reader<E> {
    each: E,
    word: String,
    range: Range<usize>,
    run: Vec<(char, Range<usize>)>,
}

impl<E: FnMut(Piece, &str, Range<usize>)> Reader<E> {
    /// A character beyond ASCII.
    fn other(&mut self, c: char, range: &Range<usize>) {
        if is_okina(c) {
            return;
        }
        if is_whole(c) {
            return self.part(c, range);
        }
        decompose_compatible(c, |part| match part {
            _ if part.is_ascii() => self.part(part.to_ascii_lowercase(), range),
            _ => part.to_lowercase().for_each(|lower| match without_stroke(lower) {
                Some(letters) => letters.chars().for_each(|letter| self.part(letter, range)),
                None => self.part(lower, range),
            }),
        });
    }

    /// One character of a decomposition, in lower case.
    fn part(&mut self, c: char, range: &Range<usize>) {
        if is_okina(c) || is_unseen(c) {
            return;
        }
        let is_mark = is_combining_mark(c);
        if is_mark && is_optional(c) {
            // It belongs to what it stands on.
            if !self.word.is_empty() {
                self.range.end = range.end;
            } else if let Some((_, last)) = self.run.last_mut() {
                last.end = range.end;
            }
        } else if is_mark || c.is_alphanumeric() {
            if !is_run(c) {
                self.letter(c, range.clone());
                self.order_marks(c);
            } else {
                self.character(c, range.clone());
            }
        } else if c == '\u{200b}' {
            // Where a line may break: between words if they are told apart, else anywhere.
            if self.run.is_empty() {
                self.end();
            }
        } else if c != '·' || !self.word.ends_with('l') {
            // Catalan has a dot between two l.
            self.end();
        }
    }

    fn letter(&mut self, c: char, range: Range<usize>) {
        if !self.run.is_empty() {
            self.end();
        }
        if self.word.is_empty() {
            self.range.start = range.start;
        }
        self.word.push(c);
        self.range.end = range.end;
    }

    /// A character of a script that has no spaces between words, or of one whose words have parts that are looked for.
    fn character(&mut self, c: char, range: Range<usize>) {
        if !self.word.is_empty() {
            self.end();
        }
        if let Some((last, of)) = self.run.last_mut() {
            // Decomposition takes Hangul and voiced kana apart.
            if let Some(whole) = compose(*last, c).filter(|whole| is_whole(*whole)) {
                (*last, of.end) = (whole, range.end);
                return;
            }
        }
        self.run.push((c, range));
        let class = canonical_combining_class(c);
        let mut at = self.run.len() - 1;
        while class > 0 && at > 0 && canonical_combining_class(self.run[at - 1].0) > class {
            let (before, after) = self.run.split_at_mut(at);
            std::mem::swap(&mut before[at - 1].0, &mut after[0].0);
            at -= 1;
        }
    }

    /// Marks on one letter may have been typed in any order.
    fn order_marks(&mut self, c: char) {
        let class = canonical_combining_class(c);
        if class == 0 {
            return;
        }
        self.word.pop();
        let before =
            self.word.char_indices().rev().take_while(|(_, m)| canonical_combining_class(*m) > class);
        let at = before.last().map_or(self.word.len(), |(at, _)| at);
        self.word.insert(at, c);
    }

    /// The word or run is over.
    fn end(&mut self) {
        if !self.word.is_empty() {
            (self.each)(Piece::Word, &self.word, self.range.clone());
            self.word.clear();
        }
        let mut pair = String::new();
        for both in self.run.windows(2) {
            pair.clear();
            pair.extend(both.iter().map(|(c, _)| c));
            (self.each)(Piece::Pair, &pair, both[0].1.start..both[1].1.end);
        }
        if let Some((c, range)) = self.run.last() {
            (self.each)(Piece::Last, c.encode_utf8(&mut [0; 4]), range.clone());
            self.run.clear();
        }
    }
}

/// Characters that are nothing to see: soft hyphens, joiners, signs of direction, fillers, the stretch of Arabic.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{640}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200c}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Marks of alphabets, which people leave out: diacritics of Latin, Greek and Cyrillic, the points of Hebrew, Arabic and Syriac,
/// signs of recitation, variants of glyphs. A mark that is not among these is part of how its script spells.
fn is_optional(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6ed}' | '\u{711}' | '\u{730}'..='\u{74a}'
        | '\u{898}'..='\u{89f}' | '\u{8ca}'..='\u{8ff}' | '\u{951}'..='\u{954}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1cd0}'..='\u{1cff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{2de0}'..='\u{2dff}'
        | '\u{302a}'..='\u{302d}' | '\u{a66f}'..='\u{a69f}' | '\u{fb1e}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' | '\u{180b}'..='\u{180f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Characters that nothing is taken off: Han, kana and syllables of Hangul.
fn is_whole(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{309d}' | '\u{309e}' | '\u{30a1}'..='\u{30fe}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
        // The dot between words written in kana.
        && c != '\u{30fb}'
}

/// Blocks of scripts that are written without spaces, and those of Hangul, whose words carry endings.
fn is_run(c: char) -> bool {
    matches!(c,
        // Thai and Lao, Myanmar, Hangul letters, Khmer, Tai and its neighbours, Balinese.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        | '\u{1950}'..='\u{19ff}' | '\u{1a20}'..='\u{1aaf}' | '\u{1b00}'..='\u{1b7f}'
        // Han, kana, Bopomofo, Yi.
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{9fff}' | '\u{a000}'..='\u{a4cf}'
        // Hangul, Javanese, more of Myanmar, Tai Viet.
        | '\u{a960}'..='\u{a9df}' | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aadf}' | '\u{ac00}'..='\u{d7ff}'
        // Han, Ahom, Tangut, more of kana and Han.
        | '\u{f900}'..='\u{faff}' | '\u{11700}'..='\u{1174f}' | '\u{16fe0}'..='\u{18dff}' | '\u{1aff0}'..='\u{1b2ff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Letters that Unicode does not take apart into a letter and marks, though its name for them does (`L WITH STROKE`), and ligatures
/// that are letters.
fn without_stroke(c: char) -> Option<&'static str> {
    Some(match c {
        'ᶏ' | 'ⱥ' => "a",
        'ꜳ' => "aa",
        'æ' => "ae",
        'ꜵ' => "ao",
        'ꜷ' => "au",
        'ꜹ' | 'ꜻ' => "av",
        'ꜽ' => "ay",
        'ƀ' | 'ƃ' | 'ɓ' | 'ᵬ' | 'ᶀ' | 'ꞗ' => "b",
        'ƈ' | 'ȼ' | 'ɕ' | 'ꞓ' | 'ꞔ' => "c",
        'ð' | 'đ' | 'ƌ' | 'ȡ' | 'ɖ' | 'ɗ' | 'ᵭ' | 'ᶁ' | 'ᶑ' | 'ꟈ' => "d",
        'ɇ' | 'ᶒ' | 'ⱸ' | 'ꬴ' => "e",
        'ƒ' | 'ᵮ' | 'ᶂ' | 'ꞙ' => "f",
        'ǥ' | 'ɠ' | 'ᶃ' | 'ꞡ' => "g",
        'ħ' | 'ɦ' | 'ⱨ' | 'ꞕ' => "h",
        'ı' | 'ɨ' | 'ᶖ' => "i",
        'ȷ' | 'ɉ' | 'ɟ' | 'ʄ' | 'ʝ' => "j",
        'ĸ' | 'ƙ' | 'ᶄ' | 'ⱪ' | 'ꝁ' | 'ꝃ' | 'ꝅ' | 'ꞣ' => "k",
        'ł' | 'ƚ' | 'ȴ' | 'ɫ' | 'ɬ' | 'ɭ' | 'ᶅ' | 'ⱡ' | 'ꝉ' | 'ꞎ' => "l",
        'ɱ' | 'ᵯ' | 'ᶆ' => "m",
        'ŋ' | 'ƞ' | 'ȵ' | 'ɲ' | 'ɳ' | 'ᵰ' | 'ᶇ' | 'ꞑ' | 'ꞥ' => "n",
        'ø' | 'ⱺ' | 'ꝋ' | 'ꝍ' => "o",
        'œ' | 'ꭁ' => "oe",
        'ꝏ' => "oo",
        'ƥ' | 'ᵱ' | 'ᵽ' | 'ᶈ' | 'ꝑ' | 'ꝓ' | 'ꝕ' => "p",
        'ɋ' | 'ʠ' | 'ꝗ' | 'ꝙ' => "q",
        'ɍ' | 'ɼ' | 'ɽ' | 'ɾ' | 'ᵲ' | 'ᵳ' | 'ᶉ' | 'ꞧ' => "r",
        'ȿ' | 'ʂ' | 'ᵴ' | 'ᶊ' | 'ẜ' | 'ẝ' | 'ꞩ' | 'ꟊ' => "s",
        'ß' => "ss",
        'ŧ' | 'ƫ' | 'ƭ' | 'ȶ' | 'ʈ' | 'ᵵ' | 'ⱦ' => "t",
        'þ' | 'ꝥ' | 'ꝧ' => "th",
        'ʉ' | 'ᶙ' | 'ꞹ' => "u",
        'ᵫ' => "ue",
        'ʋ' | 'ᶌ' | 'ⱱ' | 'ⱴ' | 'ꝟ' => "v",
        'ꝡ' => "vy",
        'ⱳ' => "w",
        'ᶍ' => "x",
        'ƴ' | 'ɏ' | 'ỿ' => "y",
        'ƶ' | 'ȥ' | 'ɀ' | 'ʐ' | 'ʑ' | 'ᵶ' | 'ᶎ' | 'ⱬ' => "z",
        'ς' => "σ",
        'ґ' | 'ғ' | 'ҕ' | 'ӷ' | 'ӻ' => "г",
        'җ' => "ж",
        'ҙ' => "з",
        'ҋ' => "и",
        'қ' | 'ҝ' | 'ҟ' | 'ӄ' => "к",
        'ӆ' | 'ԓ' | 'ԡ' | 'ԯ' => "л",
        'ӎ' => "м",
        'ң' | 'ӈ' | 'ӊ' | 'ԣ' | 'ԩ' => "н",
        'ҧ' | 'ԥ' => "п",
        'ҏ' => "р",
        'ҫ' => "с",
        'ҭ' | 'ꚋ' => "т",
        'ҳ' | 'ӽ' | 'ӿ' => "х",
        'ҷ' | 'ҹ' => "ч",
        'ұ' => "ү",
        _ => return None,
    })
}

/// The ʻokina, and what is typed where a keyboard has none.
pub(crate) fn is_okina(c: char) -> bool {
    matches!(c, 'ʻ' | '‘' | '’' | '\'' | 'ʼ' | 'ʽ' | 'ʾ' | '`' | '´' | '′')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count_is_folded_away() {
        for (typed, wanted) in [
            ("Hoʻi ho'i HO‘I ho`i hōʻi ho\u{304}ʻi", "hoi hoi hoi hoi hoi hoi "),
            ("Łódź Đường STRAẞE Ærø Þórður ığdır İzmir", "lodz duong strasse aero thordur igdir izmir "),
            ("ﬁnal ﬂow ĳs ＡＢＣ １２ №", "final flow ijs abc 12 no "),
            ("co\u{ad}op\u{200d}er\u{2060}ate col·lecció", "cooperate colleccio "),
            ("Ἀθῆναι ΣΟΦΟΣ σοφός", "αθηναι σοφοσ σοφοσ "),
            ("Ёлка ґанок қазақ", "елка ганок казак "),
            ("שָׁלוֹם مُحَمَّد أحمد محـــمد", "שלום محمد احمد محمد "),
            ("काम कम", "काम कम "),
            ("한국어 \u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}", "한국어 한국 "),
            ("ガｶﾞか\u{3099} はし ばし", "ガガが はし ばし "),
            ("กินข้าว กิน\u{200b}ข้าว", "กินข้าว กินข้าว "),
            ("don't e-mail x_y 3.14", "dont e mail x y 3 14 "),
            ("", ""),
        ] {
            assert_eq!(folded(typed), wanted, "{typed}");
        }
        // Of two marks on one letter either may come first.
        assert_eq!(folded("\u{e01}\u{e39}\u{e48}"), folded("\u{e01}\u{e48}\u{e39}"));
        assert_eq!(folded("\u{915}\u{93c}\u{94d}"), folded("\u{915}\u{94d}\u{93c}"));
    }

    #[test]
    fn pieces_say_where_they_stand() {
        let found = |text: &str| {
            let mut found = Vec::new();
            pieces(text, |piece, folded, range| {
                found.push((piece, folded.to_owned(), text[range].to_owned()))
            });
            found
        };
        let of = |piece, folded: &str, text: &str| (piece, folded.to_owned(), text.to_owned());
        assert_eq!(
            found("ʻHōʻi, しりと!"),
            [
                of(Piece::Word, "hoi", "Hōʻi"),
                of(Piece::Pair, "しり", "しり"),
                of(Piece::Pair, "りと", "りと"),
                of(Piece::Last, "と", "と")
            ]
        );
        assert_eq!(
            found("\"ho\u{304}\" v1游"),
            [of(Piece::Word, "ho", "ho\u{304}"), of(Piece::Word, "v1", "v1"), of(Piece::Last, "游", "游")]
        );
    }
}
