//! A device that one client at a time may use: the others wait in line, and learn their place in
//! it.
//!
//! ```text
//! anna has place 0, bob place 1, carl place 2
//! carl does not wait for long: [busy] …
//! anna moves the arm to 10
//! anna leaves
//! bob moves the arm to 20
//! the server saw bob at 10 and left him at 20
//! ```

use std::sync::Mutex;
use std::time::Duration;

use arrpc::{Context, Error, Exclusive, Router, Server, Value, blocking};

/// What the server keeps for each connection.
#[derive(Default)]
struct Moves(Mutex<Vec<i64>>);

fn main() -> Result<(), Error> {
    let arm = Mutex::new(0);
    let router = Router::new()
        .method("move", ["to"], move |context: Context, to: i64| {
            let mut position = arm.lock().expect("no panic");
            if let Some(Moves(moves)) = context.state() {
                moves.lock().expect("no panic").extend([*position, to]);
            }
            *position = to;
        })
        .method("moves", [], |context: Context| {
            let moves = context.state().map(|Moves(moves)| moves.lock().expect("no panic").clone());
            arrpc::Serde(moves.unwrap_or_default())
        })
        .exclusive(Exclusive::new().wait_timeout(Duration::from_millis(200)));
    let server = Server::with_handler("127.0.0.1", 0, router)
        .on_connect(|_| Moves::default())
        .start_background()?;

    // A client of the line is a connection, so each of these has no more than one.
    let port = server.local_addr().port();
    let client = || blocking::Client::new("127.0.0.1", port).max_connections(1);
    let (anna, bob, carl) = (client(), client(), client());
    let enter = |client: &blocking::Client| client.call::<usize>("arrpc.enter", ());
    let places = [enter(&anna)?, enter(&bob)?, enter(&carl)?];
    println!("anna has place {}, bob place {}, carl place {}", places[0], places[1], places[2]);

    match carl.call::<Value>("move", (30,)) {
        Err(error) => println!("carl does not wait for long: {error}"),
        Ok(reply) => println!("unexpected: {reply}"),
    }
    anna.call::<()>("move", (10,))?;
    println!("anna moves the arm to 10");
    drop(anna);
    println!("anna leaves");
    bob.call::<()>("move", (20,))?;
    println!("bob moves the arm to 20");
    let moves: Vec<i64> = bob.call("moves", ())?;
    println!("the server saw bob at {} and left him at {}", moves[0], moves[1]);

    server.stop();
    server.join();
    Ok(())
}
