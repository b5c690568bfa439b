//! A private certificate authority per world and the certificate of its listeners.
//!
//! The authority's key is kept in the store as `keys/ca` (`{private_pem, cert_pem}`), so clients
//! that trusted it once trust it after a restart. The leaf is made anew at each start.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

use super::{context::Context, store::Write};

const KEY: &str = "keys/ca";

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Making a key or certificate.
    #[error("making the sandbox's certificates")]
    Certificate(#[from] rcgen::Error),
    /// Setting up TLS with them.
    #[error("setting up TLS with the sandbox's certificates")]
    Setup(#[from] rustls::Error),
    /// Writing the authority to the world's log.
    #[error("storing the sandbox's certificate authority")]
    Store(#[from] std::io::Error),
}

/// The authority's certificate in PEM. Made on first use.
pub fn ca_pem(ctx: &Context) -> Result<String, TlsError> {
    Ok(authority(ctx)?.1)
}

/// The authority's private key and certificate, both in PEM.
fn authority(ctx: &Context) -> Result<(String, String), TlsError> {
    let mut world = ctx.store.lock();
    if let Some(stored) = world.get(KEY).and_then(|doc| {
        Some((doc.get("private_pem")?.as_str()?.into(), doc.get("cert_pem")?.as_str()?.into()))
    }) {
        return Ok(stored);
    }
    let key = KeyPair::generate()?;
    let certificate = ca_params()?.self_signed(&key)?;
    let (private, public) = (key.serialize_pem(), certificate.pem());
    let doc = json!({ "private_pem": private, "cert_pem": public });
    world.commit(vec![Write::put(KEY, doc)])?;
    Ok((private, public))
}

/// Parameters of the authority. They never change: a stored key and these make the same issuer.
fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "widentity sandbox");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The TLS set-up of every listener: one leaf for loopback and for `names`, which may start with
/// `*.`.
pub(super) fn server_config(
    ctx: &Context,
    names: &[String],
) -> Result<Arc<ServerConfig>, TlsError> {
    let (private, _) = authority(ctx)?;
    let issuer = Issuer::new(ca_params()?, KeyPair::from_pem(&private)?);
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    hosts.extend(names.iter().cloned());
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
