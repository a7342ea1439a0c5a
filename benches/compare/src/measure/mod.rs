//! A run: the contestants of each row take turns in several rounds, each with a fresh server and a
//! fresh client, in processes of their own whose CPU time is read from outside.

pub(crate) mod hmac;
pub(crate) mod process;
pub(crate) mod results;

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::arguments::{Options, Scale};
use crate::contestants::Contestant;
use crate::rows::Row;
use process::{Process, cpu_of_all, itself};
use results::{Figures, Measured, Results};

/// The processes of a measurement tell when they have come so far.
const WARM: &str = "warm";
const DONE: &str = "done";

/// How long each measurement takes, and how often it is made.
#[derive(Clone, Copy, Debug)]
struct Timing {
    rounds: usize,
    warm_up: Duration,
    time: Duration,
}

impl Timing {
    fn of(scale: Scale) -> Self {
        match scale {
            Scale::Full => Self {
                rounds: 5,
                warm_up: Duration::from_millis(250),
                time: Duration::from_millis(1000),
            },
            Scale::Small => Self {
                rounds: 1,
                warm_up: Duration::from_millis(30),
                time: Duration::from_millis(100),
            },
        }
    }
}

/// Measures the rows and contestants that are asked for.
pub(crate) fn all(options: &Options) -> Result<Results> {
    let timing = Timing::of(options.scale);
    let is_wanted = |name: String| options.only.as_ref().is_none_or(|only| name.contains(only));
    let mut results = Results::new(options.scale, timing.rounds);
    for row in Row::all() {
        let contestants: Vec<Contestant> = row
            .contestants()
            .into_iter()
            .filter(|contestant| is_wanted(row.to_string()) || is_wanted(contestant.to_string()))
            .collect();
        if contestants.is_empty() {
            continue;
        }
        let mut measured: Vec<_> =
            contestants.into_iter().map(|contestant| Measured::new(row, contestant)).collect();
        for _ in 0..timing.rounds {
            results.hmac_ns.push(hmac::nanoseconds());
            for measured in &mut measured {
                let contestant = measured.contestant;
                measured.add(|| measure(row, contestant, timing));
            }
        }
        for measured in &measured {
            println!("{measured}");
        }
        results.rows.extend(measured);
    }
    ensure!(!results.rows.is_empty(), "--only: no name of a row or a contestant contains it");
    Ok(results)
}

/// What a client tells at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Driven {
    requests: u64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

fn measure(row: Row, contestant: Contestant, timing: Timing) -> Result<Figures> {
    let mut server = Process::start(&mut contestant.server(row)?).context("server")?;
    let address = address(&server.line().context("server")?)?;
    let mut command = itself();
    command.arg("load").arg(serde_json::to_string(&row)?).arg(serde_json::to_string(&contestant)?);
    let mut client = Process::start(command.arg(address.to_string())).context("client")?;

    let micros = |time: Duration| time.as_micros().to_string();
    client.order(&micros(timing.warm_up));
    client.expect(WARM).context("warm-up")?;
    let (start, all_before) = (Instant::now(), cpu_of_all()?);
    let (server_before, client_before) = (server.cpu()?, client.cpu()?);
    client.order(&micros(timing.time));
    client.expect(DONE).context("run")?;
    let server_cpu = server.cpu()?.saturating_sub(server_before);
    let client_cpu = client.cpu()?.saturating_sub(client_before);
    let all_cpu = cpu_of_all()?.saturating_sub(all_before);
    let others = all_cpu.saturating_sub(server_cpu + client_cpu);
    let others = others.as_secs_f64() / start.elapsed().as_secs_f64();
    let memory = server.peak_memory()?;
    client.order("");
    let driven: Driven = serde_json::from_str(&client.line()?)?;

    let requests = driven.requests as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
    Ok(Figures {
        requests_per_second: requests / driven.seconds,
        p50_us: driven.p50_us,
        p99_us: driven.p99_us,
        p999_us: driven.p999_us,
        server_cpu_us: each(server_cpu),
        client_cpu_us: each(client_cpu),
        server_memory_mib: memory as f64 / f64::from(1 << 20),
        others_cpus: others,
    })
}

/// What a server prints: its address, or its port on this machine.
fn address(line: &str) -> Result<SocketAddr> {
    let address = match line.parse::<u16>() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => line.parse().with_context(|| format!("no address: {line}"))?,
    };
    Ok(address)
}

/// The server's process: ends when its input does.
pub(crate) fn serve(row: Row, contestant: Contestant) -> Result<ExitCode> {
    thread::spawn(|| {
        // However it ends.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    contestant.serve(row)?;
    Ok(ExitCode::SUCCESS)
}

/// The client's process: connects, and drives for as many microseconds as each line of input says.
/// The first is the warm-up, behind the second is silence, so that the CPU time can be read.
pub(crate) fn load(row: Row, contestant: Contestant, address: SocketAddr) -> Result<ExitCode> {
    let mut load = contestant.load(row, address)?;
    load.drive(ordered()?)?;
    println!("{WARM}");
    let time = load.drive(ordered()?)?;
    println!("{DONE}");
    io::stdin().read_line(&mut String::new())?;
    let latencies = load.latencies();
    let percentile = |share: f64| latencies.value_at_percentile(share) as f64 / 1e3;
    let driven = Driven {
        requests: latencies.len(),
        seconds: time.as_secs_f64(),
        p50_us: percentile(50.0),
        p99_us: percentile(99.0),
        p999_us: percentile(99.9),
    };
    println!("{}", serde_json::to_string(&driven)?);
    Ok(ExitCode::SUCCESS)
}

fn ordered() -> Result<Duration> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(Duration::from_micros(line.trim().parse().context("no order")?))
}
