//! TLS on listeners, with a session that echoes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use sabir_base::testing::{keep_log, logged};
use sabir_net::{
    Appetite, ClientAuth, Connection, ConnectionCounters, DialTls, Dialer, Ending, Frontend, Io, Limits,
    ListenAddress, ListenOptions, Listener, LocalBoxFuture, Net, NetOptions, Patience, Session, Standing,
    Tls, TlsError, TlsOptions, drive,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(20);

struct Echo;

impl Session for Echo {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        if io.output.is_full() || io.input.bytes.is_empty() {
            return Ok(false);
        }
        io.output.push(io.input.bytes.split().freeze());
        Ok(true)
    }

    fn appetite(&self, io: &Io) -> Appetite {
        if io.output.is_full() { Appetite::Little } else { Appetite::All }
    }

    fn standing(&self) -> Standing {
        Standing::Idle
    }

    fn patience(&self, _: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: None }
    }

    fn client(&self) -> &str {
        "echo"
    }
}

struct Served(Arc<ConnectionCounters>);

impl Frontend for Served {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture {
        Box::pin(drive(connection, Echo, self.0.clone()))
    }
}

/// An authority, and the files of certificates that it vouches for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for `name` and its key.
    fn certify(&self, name: &str, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn write(&self, dir: &Path) {
        std::fs::write(dir.join("ca.crt"), self.0.pem()).unwrap();
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

/// A node that echoes within TLS, with the certificate `localhost` of an authority.
struct Rig {
    net: Net,
    address: SocketAddr,
    authority: Authority,
    tls: Arc<Tls>,
    dir: tempfile::TempDir,
}

fn options(dir: &Path, client_auth: ClientAuth) -> TlsOptions {
    TlsOptions {
        certificate: dir.join("localhost.crt"),
        key: dir.join("localhost.key"),
        client_ca: Some(dir.join("ca.crt")),
        client_auth,
    }
}

fn rig(client_auth: ClientAuth, net: NetOptions) -> Rig {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.write(dir.path());
    authority.certify("localhost", dir.path());
    let tls = Arc::new(Tls::load(options(dir.path(), client_auth)).unwrap());
    let net = Net::start(&NetOptions { io_threads: 1, ..net }, Vec::new()).unwrap();
    let address = ListenAddress { address: "127.0.0.1:0".parse().unwrap(), tls: Some(tls.clone()) };
    let options =
        ListenOptions { section: "echo", addresses: vec![address], anonymous: false, max_connections: 100 };
    let listener = Listener::bind(&options).unwrap();
    let address = listener.addresses()[0];
    net.serve(listener, Arc::new(Served(Arc::new(ConnectionCounters::new("echo", &[])))));
    Rig { net, address, authority, tls, dir }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

impl Rig {
    /// A client that trusts the authority, and shows the certificate `shows` where there is one.
    fn connect(&self, versions: &[&'static SupportedProtocolVersion], shows: Option<&Path>) -> Client {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.authority.roots());
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let certificate = CertificateDer::from_pem_file(file.with_extension("crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(file.with_extension("key")).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(session, stream)
    }

    fn client(&self) -> Client {
        self.connect(rustls::ALL_VERSIONS, None)
    }

    fn failed(&self) -> u64 {
        self.net.stats()[0].tls_failed
    }

    fn wait_for_failed(&self, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.failed() < count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.failed(), count);
    }
}

fn echoes(client: &mut Client) -> std::io::Result<()> {
    client.write_all(b"hello")?;
    let mut answer = [0; 5];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[test]
fn what_is_echoed_through_each_version_is_what_was_sent() {
    for version in [&version::TLS12, &version::TLS13] {
        let rig = rig(ClientAuth::None, NetOptions::default());
        let mut client = rig.connect(&[version], None);
        let sent: Vec<u8> = (0..4 << 20).map(|i: u32| (i ^ (i >> 9)) as u8).collect();
        // More than the stream and the socket hold, so that each side waits for the other; then pieces of every size.
        for piece in sent.chunks(1 << 16).chain((1..300).map(|size| &sent[..size * 7])) {
            client.write_all(piece).unwrap();
            let mut back = vec![0; piece.len()];
            client.read_exact(&mut back).unwrap();
            assert!(back == piece, "{} bytes", piece.len());
        }
        // All at once, to a client that reads only when it has written all.
        client.write_all(&sent[..1 << 20]).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).or_else(unexpected_end).unwrap();
        assert!(back == sent[..1 << 20], "{} of {} bytes", back.len(), 1 << 20);
        assert_eq!(rig.failed(), 0);
    }
}

/// The broker closes without TLS's farewell.
fn unexpected_end(error: std::io::Error) -> std::io::Result<usize> {
    if error.kind() == ErrorKind::UnexpectedEof { Ok(0) } else { Err(error) }
}

#[test]
fn a_client_that_does_not_read_is_dropped_in_time() {
    let rig = rig(
        ClientAuth::None,
        NetOptions { write_timeout: Duration::from_millis(200), ..NetOptions::default() },
    );
    let mut client = rig.client();
    echoes(&mut client).unwrap();
    client.sock.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let until = Instant::now() + PATIENCE;
    while client.write_all(&[7; 1 << 16]).is_ok() && Instant::now() < until {}
    while rig.net.stats()[0].open > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.net.stats()[0].open, 0);
}

#[test]
fn who_speaks_no_tls_is_closed_counted_and_named() {
    keep_log();
    let rig = rig(
        ClientAuth::None,
        NetOptions { handshake_timeout: Duration::from_millis(200), ..NetOptions::default() },
    );
    let rest = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let mut plain = TcpStream::connect(rig.address).unwrap();
    plain.write_all(b"\0\0\0\x10\0\x12\0\0 a request in plain text").unwrap();
    rest(plain);
    rig.wait_for_failed(1);
    assert!(!logged(&["does the client speak plain text?"]).is_empty());
    rest(TcpStream::connect(rig.address).unwrap());
    rig.wait_for_failed(2);
    // One that goes has only gone.
    drop(TcpStream::connect(rig.address).unwrap());
    echoes(&mut rig.client()).unwrap();
    assert_eq!(rig.failed(), 2);
}

#[test]
fn clients_show_a_certificate_where_they_have_to() {
    let foreign = tempfile::tempdir().unwrap();
    Authority::new().certify("client", foreign.path());
    let foreign = foreign.path().join("client");
    for (client_auth, without) in [(ClientAuth::Required, false), (ClientAuth::Wanted, true)] {
        let rig = rig(client_auth, NetOptions::default());
        assert_eq!(rig.tls.knows_clients(), !without);
        rig.authority.certify("client", rig.dir.path());
        for version in [&version::TLS12, &version::TLS13] {
            let known = rig.dir.path().join("client");
            echoes(&mut rig.connect(&[version], Some(&known))).unwrap();
            assert!(echoes(&mut rig.connect(&[version], Some(&foreign))).is_err());
            assert_eq!(echoes(&mut rig.connect(&[version], None)).is_ok(), without);
        }
        rig.wait_for_failed(if without { 2 } else { 4 });
    }
}

#[test]
fn other_files_are_served_from_then_on_and_those_that_cannot_be_are_not() {
    let mut rig = rig(ClientAuth::None, NetOptions::default());
    let mut before = rig.client();
    echoes(&mut before).unwrap();
    assert!(!rig.tls.reload().unwrap());
    let other = Authority::new();
    other.certify("localhost", rig.dir.path());
    assert!(rig.tls.reload().unwrap());
    assert!(echoes(&mut rig.client()).is_err(), "its authority is another one's");
    echoes(&mut before).unwrap();
    rig.authority = other;
    echoes(&mut rig.client()).unwrap();

    std::fs::write(rig.dir.path().join("localhost.key"), "no key").unwrap();
    let refused = rig.tls.reload().unwrap_err().to_string();
    assert!(refused.contains("localhost.key") && refused.contains("private key"), "{refused}");
    assert!(!rig.tls.reload().unwrap(), "it is said once");
    echoes(&mut rig.client()).unwrap();
}

#[test]
fn files_that_cannot_be_served_are_named() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.certify("localhost", dir.path());
    let at = |name: &str| dir.path().join(name);
    let good = options(dir.path(), ClientAuth::None);
    let refused = |options: &TlsOptions| Tls::load(options.clone()).unwrap_err();
    let absent = TlsOptions { certificate: at("absent"), ..good.clone() };
    assert!(matches!(refused(&absent), TlsError::Unreadable { path, .. } if path == at("absent")));
    let swapped = TlsOptions { certificate: good.key.clone(), key: good.certificate.clone(), ..good.clone() };
    assert!(matches!(refused(&swapped), TlsError::Empty { what: "certificate", .. }));
    authority.certify("other", dir.path());
    let foreign = TlsOptions { key: at("other.key"), ..good.clone() };
    assert!(matches!(refused(&foreign), TlsError::Unfit { .. }));
    let nobody = TlsOptions { client_ca: None, client_auth: ClientAuth::Required, ..good.clone() };
    assert!(matches!(refused(&nobody), TlsError::NoAuthority));
    let no_ca = TlsOptions { client_auth: ClientAuth::Wanted, ..good };
    assert!(matches!(refused(&no_ca), TlsError::Unreadable { path, .. } if path == at("ca.crt")));
}

#[test]
fn other_machines_come_in_where_they_have_to_show_a_certificate() {
    let at = |client_auth| {
        let rig = rig(client_auth, NetOptions::default());
        let address = ListenAddress { address: "0.0.0.0:0".parse().unwrap(), tls: Some(rig.tls.clone()) };
        let addresses = vec![address];
        Listener::bind(&ListenOptions { section: "echo", addresses, anonymous: false, max_connections: 1 })
    };
    assert!(at(ClientAuth::Required).is_ok());
    assert!(at(ClientAuth::Wanted).is_err());
    assert!(at(ClientAuth::None).is_err());
}

/// Connects as the command line does, and has something echoed: the more there is, the more each end waits for the other.
async fn dialed(address: &str, tls: &DialTls) -> Result<(), String> {
    let dialer = Dialer::tls(tls).map_err(|error| error.to_string())?;
    let socket = dialer.connect(address).await.map_err(|error| error.to_string())?;
    let (mut read, mut write) = tokio::io::split(socket);
    let sent: Vec<u8> = (0..3_u32 << 20).map(|i| (i ^ (i >> 9)) as u8).collect();
    let expected = sent.clone();
    let writing =
        tokio::spawn(async move { write.write_all(&sent).await.map_err(|e| e.to_string()).map(|()| write) });
    let mut back = vec![0; expected.len()];
    read.read_exact(&mut back).await.map_err(|error| error.to_string())?;
    assert!(back == expected, "something else came back");
    writing.await.unwrap().map(drop)
}

#[tokio::test]
async fn a_dialer_connects_to_whom_it_trusts_and_says_why_it_does_not() {
    let rig = rig(ClientAuth::None, NetOptions::default());
    let (here, port) = (rig.dir.path(), rig.address.port());
    let (host, by_address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));
    let trusting = DialTls { authorities: Some(here.join("ca.crt")), ..DialTls::default() };
    assert_eq!(dialed(&host, &trusting).await, Ok(()));
    let insecure = DialTls { insecure: true, ..DialTls::default() };
    assert_eq!(dialed(&by_address, &insecure).await, Ok(()));
    let foreign = tempfile::tempdir().unwrap();
    Authority::new().write(foreign.path());
    let distrusting = DialTls { authorities: Some(foreign.path().join("ca.crt")), ..DialTls::default() };
    let (not_for_it, not_known) = (dialed(&by_address, &trusting).await, dialed(&host, &distrusting).await);
    for refused in [not_for_it.unwrap_err(), not_known.unwrap_err()] {
        assert!(refused.contains("its certificate is not good here"), "{refused}");
    }
    let no_file = DialTls { authorities: Some(here.join("absent")), ..DialTls::default() };
    assert!(dialed(&host, &no_file).await.unwrap_err().contains("absent"));
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_named() {
    let rig = rig(ClientAuth::None, NetOptions::default());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap();
    std::fs::write(rig.dir.path().join("localhost.crt"), own.pem()).unwrap();
    std::fs::write(rig.dir.path().join("localhost.key"), key.serialize_pem()).unwrap();
    rig.tls.reload().unwrap();
    let named = DialTls { authorities: Some(rig.dir.path().join("localhost.crt")), ..DialTls::default() };
    let port = rig.address.port();
    assert_eq!(dialed(&format!("localhost:{port}"), &named).await, Ok(()));
    assert!(dialed(&format!("127.0.0.1:{port}"), &named).await.is_err(), "it is for another name");
    let other = DialTls { authorities: Some(rig.dir.path().join("ca.crt")), ..DialTls::default() };
    assert!(dialed(&format!("localhost:{port}"), &other).await.is_err());
}

#[tokio::test]
async fn a_dialer_shows_its_certificate_and_learns_that_it_is_refused() {
    let rig = rig(ClientAuth::Required, NetOptions::default());
    rig.authority.certify("client", rig.dir.path());
    let (here, host) = (rig.dir.path(), format!("localhost:{}", rig.address.port()));
    let anonymous = DialTls { authorities: Some(here.join("ca.crt")), ..DialTls::default() };
    let identity = Some((here.join("client.crt"), here.join("client.key")));
    assert_eq!(dialed(&host, &DialTls { identity, ..anonymous.clone() }).await, Ok(()));
    let refused = dialed(&host, &anonymous).await.unwrap_err();
    assert!(refused.contains("certificate"), "TLS says so once the connection is made: {refused}");
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("localhost:{}", plain.local_addr().unwrap().port());
    let greeting = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"no TLS at all, but something long enough to be looked at").await.unwrap();
    });
    let refused = dialed(&at, &anonymous).await.unwrap_err();
    assert!(refused.contains("does it speak plain text there?"), "{refused}");
    greeting.await.unwrap();
}
