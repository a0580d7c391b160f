//! An issuer of tokens, as a shop has one: keys of both kinds, a key set behind an URL, and keys that change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::Ed25519KeyPair,
};
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Value, json};

type Shown = Arc<Mutex<Now>>;

/// How an issuer answers now.
#[derive(Clone)]
enum Now {
    Keys(JwkSet),
    Fails,
    Hangs,
}

/// A key that tokens are signed with.
#[derive(Clone)]
pub struct Key {
    kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
}

impl Key {
    pub fn ed25519(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key").to_pkcs8v1().expect("its bytes");
        let private = EncodingKey::from_ed_der(pair.as_ref());
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, private }
    }

    pub fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der = pair.as_der().expect("its bytes");
        // PKCS #1, which PKCS #8 wraps: for an RSA key of this length, in 26 bytes.
        let private = EncodingKey::from_rsa_der(&der.as_ref()[26..]);
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, private }
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a public key");
        jwk.common.key_id = Some(self.kid.clone());
        jwk
    }

    /// A token with these claims, whatever they are.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.private).expect("signed")
    }

    /// A token whose reader must understand what is named in `crit`.
    pub fn critical(&self, claims: &Value, extension: &str) -> String {
        let mut header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        header.crit = Some(vec![extension.to_owned()]);
        encode(&header, claims, &self.private).expect("signed")
    }

    /// A token that holds for a minute.
    pub fn token(&self, id: &str, role: &str) -> String {
        self.sign(&claims(id, role))
    }
}

/// What a good token says; of a store, `id` is what they work for as well. The number is that of
/// [`crate::client::order`].
pub fn claims(id: &str, role: &str) -> Value {
    let stores = if role == "store" { vec![id] } else { Vec::new() };
    json!({
        "sub": id, "roles": [role], "stores": stores,
        "phone_number": "010-0000-0000", "phone_number_verified": true,
        "iss": "test-issuer", "aud": "twelve", "exp": now() + 60,
    })
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// An issuer that runs until the test ends.
pub struct Issuer {
    url: String,
    shown: Shown,
}

impl Issuer {
    pub async fn start(keys: &[&Key]) -> Self {
        let shown: Shown = Arc::new(Mutex::new(Now::Fails));
        let router = Router::new().route("/jwks", get(show)).with_state(Arc::clone(&shown));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Self { url, shown };
        issuer.show(keys);
        issuer
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Shows these keys from now on.
    pub fn show(&self, keys: &[&Key]) {
        self.show_set(JwkSet { keys: keys.iter().map(|key| key.public()).collect() });
    }

    /// Shows this key from now on, and says that it is for encryption.
    pub fn show_for_encryption(&self, key: &Key) {
        let mut jwk = key.public();
        jwk.common.public_key_use = Some(PublicKeyUse::Encryption);
        self.show_set(JwkSet { keys: vec![jwk] });
    }

    fn show_set(&self, set: JwkSet) {
        self.answer(Now::Keys(set));
    }

    /// Answers with a failure from now on.
    pub fn fail(&self) {
        self.answer(Now::Fails);
    }

    /// Takes calls and never answers them, from now on.
    pub fn hang(&self) {
        self.answer(Now::Hangs);
    }

    fn answer(&self, now: Now) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

async fn show(State(shown): State<Shown>) -> impl IntoResponse {
    let now = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match now {
        Now::Keys(set) => Json(set).into_response(),
        Now::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Now::Hangs => std::future::pending().await,
    }
}
