//! Who speaks: bearer tokens to accounts.

use std::collections::HashMap;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};

use crate::limits;

/// The account of everybody, where no tokens are configured.
pub const LOCAL_ACCOUNT: &str = "local";

/// Which tokens are good, and whose they are.
#[derive(Clone)]
pub enum Auth {
    /// Everybody who can connect is the one local account. Only for addresses that nobody else can reach.
    Local,
    /// Accounts by hash of their token. Hashes, so that a memory dump does not give tokens away and that comparing
    /// takes no longer for a better guess.
    Tokens(HashMap<[u8; 32], String>),
}

/// Who speaks, and by which token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: String,
    token: Option<[u8; 32]>,
}

/// The tokens file is not usable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A line is not `token -> account`.
    #[error("{path}, line {line}: {reason}")]
    BadLine {
        /// The file.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong; never the token itself.
        reason: &'static str,
    },
    /// It names no token, so nobody could ever connect.
    #[error("{path} holds no tokens; write lines of the form `token -> account`")]
    Empty {
        /// The file.
        path: String,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token in the `Authorization` header.
    #[error("a token is needed: send `Authorization: Bearer <token>`")]
    Missing,
    /// The token is unknown.
    #[error("the token is not valid")]
    Invalid,
    /// A web page asks a relay that serves its whole machine without tokens: any page that the user visits could.
    #[error("web pages are served only with tokens configured")]
    WebPage,
}

impl Identity {
    /// Whether it was told by a token who this is.
    pub fn is_known(&self) -> bool {
        self.token.is_some()
    }
}

impl Auth {
    /// Reads a file of lines `token -> account`. Empty lines and lines that begin with `#` are passed over; several
    /// tokens may name one account.
    ///
    /// # Errors
    /// [`TokensError`] names file and line, never a token.
    pub fn from_file(path: &Path) -> Result<Self, TokensError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| TokensError::Unreadable { path: name.clone(), reason: e.to_string() })?;
        Self::parse(&text, &name)
    }

    fn parse(text: &str, path: &str) -> Result<Self, TokensError> {
        let mut tokens = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |reason| TokensError::BadLine { path: path.to_owned(), line: i + 1, reason };
            let (token, account) =
                line.split_once("->").ok_or_else(|| bad("it is not `token -> account`"))?;
            let (token, account) = (token.trim(), account.trim());
            if token.is_empty() || account.is_empty() {
                return Err(bad("the token or the account is empty"));
            }
            if token.len() > limits::TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(bad("a token is visible ASCII without spaces"));
            }
            if tokens.insert(hash(token), account.to_owned()).is_some() {
                return Err(bad("the token stands in the file twice"));
            }
        }
        if tokens.is_empty() {
            Err(TokensError::Empty { path: path.to_owned() })
        } else {
            Ok(Self::Tokens(tokens))
        }
    }

    /// Who a request speaks for.
    ///
    /// # Errors
    /// [`AuthError`] if it has no good token.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let tokens = match self {
            // Browsers name the page's origin on every WebSocket and every cross-origin POST; apps do not.
            Auth::Local if headers.contains_key(ORIGIN) => return Err(AuthError::WebPage),
            Auth::Local => return Ok(Identity { account: LOCAL_ACCOUNT.to_owned(), token: None }),
            Auth::Tokens(tokens) => tokens,
        };
        let header = headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= limits::TOKEN_BYTES)
            .ok_or(AuthError::Missing)?;
        let token = hash(token);
        let account = tokens.get(&token).cloned().ok_or(AuthError::Invalid)?;
        Ok(Identity { account, token: Some(token) })
    }

    /// Whether somebody who was let in earlier would be let in now, as the same account.
    pub fn knows(&self, who: &Identity) -> bool {
        match (self, &who.token) {
            (Auth::Local, None) => true,
            (Auth::Tokens(tokens), Some(token)) => tokens.get(token) == Some(&who.account),
            _ => false,
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(auth: &Auth, value: &str) -> Result<String, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        auth.identify(&headers).map(|who| who.account)
    }

    #[test]
    fn tokens_name_accounts() {
        let auth = Auth::parse("# people\n\nabc -> keola\n def->keola\nghi -> ʻiolani\n", "t").unwrap();
        assert_eq!(account(&auth, "Bearer abc"), Ok("keola".into()));
        assert_eq!(account(&auth, "bearer  def"), Ok("keola".into()));
        assert_eq!(account(&auth, "Bearer ghi"), Ok("ʻiolani".into()));
        assert_eq!(account(&auth, "Bearer abcd"), Err(AuthError::Invalid));
        assert_eq!(account(&auth, "Basic abc"), Err(AuthError::Missing));
        assert_eq!(auth.identify(&HeaderMap::new()).map(|who| who.account), Err(AuthError::Missing));
        assert_eq!(Auth::Local.identify(&HeaderMap::new()).map(|who| who.account), Ok("local".into()));
        let page = HeaderMap::from_iter([(ORIGIN, "https://example.org".parse().unwrap())]);
        assert_eq!(Auth::Local.identify(&page).map(|who| who.account), Err(AuthError::WebPage));
    }

    #[test]
    fn bad_files_name_the_line_and_keep_the_secret() {
        for (text, expected) in [
            ("abc keola", "t, line 1: it is not `token -> account`"),
            ("ok -> a\nsecret ->", "t, line 2: the token or the account is empty"),
            ("se cret -> a", "t, line 1: a token is visible ASCII without spaces"),
            ("secret -> a\nsecret -> b", "t, line 2: the token stands in the file twice"),
            ("# nothing", "t holds no tokens; write lines of the form `token -> account`"),
        ] {
            let message = Auth::parse(text, "t").err().unwrap().to_string();
            assert_eq!(message, expected);
            assert!(!message.contains("secret"));
        }
    }
}
