//! Very many connections at once, all of which are answered, and what an idle one takes of the
//! server's memory.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::lockstep::MESSAGE;
use crate::peers::{self, certificate};
use crate::process::{Process, Server, itself};
use crate::verdict::{Failure, Marks, Scale};

/// What a connection may take while it is idle.
const MAX_PLAIN_BYTES: i64 = 2 * 1024;
const MAX_TLS_BYTES: i64 = 24 * 1024;

/// The processes that hold the peers' ends, each within the files that it may open.
const HOLDERS: usize = 2;

/// The threads of each of them that connect.
const THREADS: usize = 4;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let mut marks = Marks::default();
    println!(
        "connections      opened in s  answered twice  memory before MiB  idle MiB  each bytes"
    );
    for (name, transport, max_bytes) in
        [("plain", "plain", MAX_PLAIN_BYTES), ("TLS 1.3", "tls", MAX_TLS_BYTES)]
    {
        let connections = scale.pick(19_000, 1_000);
        measure(name, transport, max_bytes, connections, &mut marks);
    }
    marks.verdict()
}

fn measure(name: &str, transport: &str, max_bytes: i64, connections: usize, marks: &mut Marks) {
    let tls = (transport == "tls").then_some("tls");
    let server = Server::start(&[&["max_connections=19100"][..], tls.as_slice()].concat());
    let share = connections / HOLDERS;
    let start_holder = |count: usize, transport: &str| {
        let options = format!("hold {} {count} {transport}", server.address);
        Process::start(itself().args(options.split(' ')))
    };
    // The first connections make the process grow to its size.
    let mut first = start_holder(4 * THREADS, transport);
    assert_eq!(first.line(), "answered", "nothing else is going on");
    first.end();
    thread::sleep(Duration::from_millis(200));
    let before = server.memory();

    let start = Instant::now();
    let mut holders: Vec<_> = (0..HOLDERS).map(|_| start_holder(share, transport)).collect();
    let first = holders.iter_mut().all(|holder| holder.line() == "answered");
    let opened = start.elapsed();
    thread::sleep(Duration::from_secs(1));
    let idle = server.memory();
    let files = server.files();
    let again = holders.iter_mut().all(|holder| {
        holder.order("again");
        holder.line() == "answered"
    });
    let each = (idle - before).0 / (share * HOLDERS) as i64;
    println!(
        "{:6} {name:9} {:11.1} {:>15} {before:>18} {idle:>9} {each:11}",
        share * HOLDERS,
        opened.as_secs_f64(),
        if first && again { "all" } else { "NOT ALL" },
    );
    marks.check(first && again, || format!("{name}: not all were answered"));
    marks.check(files >= share * HOLDERS, || format!("{name}: only {files} files are open"));
    marks.check(each <= max_bytes, || {
        format!("{name}: an idle connection takes {each} bytes, more than {max_bytes}")
    });
}

/// Opens connections, sends a request on each, says so, and again for each line of input.
pub(crate) fn hold(options: &[&str]) {
    let [server, count, transport] = options[..] else { panic!("three options") };
    let server: SocketAddr = server.parse().expect("an address");
    let share = count.parse::<usize>().expect("a number") / THREADS;
    let tls = (transport == "tls").then(client_config);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let tls = tls.clone();
            let open = move |number| open(server, THREADS * number + thread, tls.as_ref());
            thread::spawn(move || (0..share).map(open).collect::<io::Result<Vec<_>>>())
        })
        .collect();
    let mut streams = Vec::new();
    for thread in threads {
        streams.extend(thread.join().expect("no panic").expect("the server accepts"));
    }
    println!("answered");
    for _ in io::stdin().lines() {
        for stream in &mut streams {
            exchange(stream).expect("the server answers");
        }
        println!("answered");
    }
}

/// A plain or an encrypted connection.
trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

fn open(
    server: SocketAddr,
    number: usize,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<Box<dyn Duplex>> {
    let socket: TcpStream = peers::connect(server, number)?;
    let mut stream: Box<dyn Duplex> = match tls {
        None => Box::new(socket),
        Some(config) => {
            let name = "localhost".try_into().expect("a name");
            let session = ClientConnection::new(config.clone(), name).expect("a good config");
            Box::new(StreamOwned::new(session, socket))
        }
    };
    exchange(&mut stream)?;
    Ok(stream)
}

fn exchange(stream: &mut impl Duplex) -> io::Result<()> {
    stream.write_all(MESSAGE)?;
    let mut reply = [0; MESSAGE.len()];
    stream.read_exact(&mut reply)?;
    match reply == MESSAGE {
        true => Ok(()),
        false => Err(io::Error::other("a wrong reply")),
    }
}

fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificate("ca.crt")).expect("it is in the repository");
    roots.add(ca).expect("a good certificate");
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
