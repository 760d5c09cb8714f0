//! Random plans: who is there, what fails, and in which order things happen. Everything follows from the seed.

use fastrand::Rng;
use server::hub::HubConfig;
use server::store::memory::MemoryStore;
use server::store::{Applicant, NewSession, Store};
use shared::acts::Act;
use shared::model::{Ms, RoomId, RoomName, UserId, UserName};
use shared::protocol::RoomKind;

use super::faults::{Faults, strike};
use super::ledger::now;
use super::people;
use super::recovery::{act_plainly, recover};
use super::world::{Setting, Voice, World};

/// Runs the plan of a seed. Panics if something does not hold. Gives what stands for all that happened, if the
/// voice makes a hash of it.
pub fn run(seed: u64, voice: Voice) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let store = MemoryStore::new([0; 32]);
    let config = HubConfig {
        message_rate: rng.choice([0, 0, 1, 3, 10]).unwrap_or(0),
        request_rate: rng.choice([0, 0, 4, 50]).unwrap_or(0),
        rooms_per_user: rng.choice([0, 0, 0, 2]).unwrap_or(0),
        ..HubConfig::default()
    };
    let nodes = rng.usize(1..=3);
    // The hubs of one program lose nothing between them.
    let lossy = nodes > 1 && rng.u8(..4) != 0;
    let faults = Faults::draw(&mut rng, lossy);
    let steps = rng.usize(40..=80);
    let is_about_order = rng.u8(..5) < 2;
    let tokens = tokens(&mut rng, &store, is_about_order);
    let mut world = World::new(rng, Setting { nodes, tokens, config, lossy, voice, store });
    world.is_about_order = is_about_order;
    world.say(|| format!("{nodes} nodes, {config:?} {faults:?}"));
    if world.rng.u8(..4) != 0 {
        world.flow();
    }
    if let Some(broker) = &world.chaos {
        broker.set_chaos(faults.chaos);
    }
    for _ in 0..steps {
        step(&mut world, &faults);
    }
    recover(&mut world);
    world.trace()
}

/// Two or three people, some of them with an account, and perhaps a second browser of the first one. Where it is
/// about order, all have one, and are in a room of their own.
fn tokens(rng: &mut Rng, store: &MemoryStore, is_about_order: bool) -> Vec<(u8, Option<UserId>)> {
    let mut tokens: Vec<(u8, Option<UserId>)> = Vec::new();
    for token in 1..=rng.u8(2..=3) {
        let id = UserId::from_bits(u64::from(token));
        let account = (is_about_order || rng.bool()).then(|| {
            let name = UserName::claim(&format!("member {token}")).expect("a name");
            let session = NewSession::of([token; 32], 0);
            now(store.sign_up(Applicant::New { id, name }, "hash".to_owned(), None, session));
            id
        });
        tokens.push((token, account));
    }
    if let Some((_, Some(_))) = tokens.first()
        && rng.u8(..3) == 0
    {
        let (link, session) = ([100; 32], [1; 32]);
        now(store.offer_ownership(link, 0, Ms::MAX, true));
        now(store.take_ownership(link, session, 0));
    }
    if is_about_order {
        let (owner, id) = (UserId::from_bits(1), RoomId::from_bits(1_000));
        let name = RoomName::claim("den").expect("a name");
        now(store.create_room(id, RoomKind::Private, name, owner, 0, 0));
        for user in tokens.iter().filter_map(|(_, user)| *user).filter(|user| *user != owner) {
            assert!(act_plainly(store, owner, Act::Invite { room: id, user }));
        }
    }
    match (rng.u8(..4), tokens.first().copied()) {
        (0, Some((_, Some(user)))) => {
            let token = tokens.len() as u8 + 1;
            now(store.sign_in(user, NewSession::of([token; 32], 0), None));
            tokens.push((token, Some(user)));
        }
        (0 | 1, Some(first)) => tokens.push(first),
        _ => {}
    }
    tokens
}

fn step(world: &mut World, faults: &Faults) {
    let client = world.rng.usize(..world.clients.len());
    match world.rng.u8(..100) {
        0..40 => people::act(world, client),
        40..60 => {}
        60..70 => {
            let ms =
                world.rng.choice([10, 100, 300, 1_000, 1_000, 3_000, 6_000, 20_000, 70_000]).unwrap_or(10);
            world.pass(ms);
        }
        _ => strike(world, faults, client),
    }
    // Something moves, not always all of it.
    for _ in 0..world.rng.usize(..4) {
        let client = world.rng.usize(..world.clients.len());
        world.open(client);
        let count = world.rng.usize(..4);
        world.carry_up(client, count);
        let place = world.rng.usize(..world.nodes.len());
        let (steps, answers) = (world.rng.usize(..8), world.rng.usize(..4));
        let _moved = (0..steps).take_while(|_| world.step_node(place)).count();
        world.answer_node(place, answers);
        let count = world.rng.usize(..6);
        world.carry_down(client, count);
        if world.rng.u8(..3) == 0 {
            world.settle_orphan();
        }
    }
    if world.rng.u8(..6) == 0 {
        world.flow();
    }
}
