"""The price of a machine's hour."""

import pytest

from job.cloud.machine_types import machines
from job.cloud.prices import price_here, read_usd
from job.errors import UsageError
from job.runs.cost import Price
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.http_server import Handler, serving

G2 = "instance/machine-type", "projects/123/machineTypes/g2-standard-8"


def asked(monkeypatch, server):
    """Let this machine be the one that the server describes."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return price_here()


@pytest.mark.parametrize(("preemptible", "kind", "words"), [("TRUE", 0, "Spot"), ("FALSE", 1, "on demand")])
def test_a_machine_of_google_cloud_is_looked_up(monkeypatch, preemptible, kind, words):
    """Type and provisioning come from the metadata server, dated prices from the list, the high end of each range."""
    listed = machines()["g2-standard-8"].prices
    with running_metadata_server(**dict([G2]), **{"instance/scheduling/preemptible": preemptible}) as server:
        found = asked(monkeypatch, server)
    assert found == Price(
        usd_per_h=(listed.spot, listed.on_demand)[kind][1],
        on_demand_usd_per_h=listed.on_demand[1],
        machine=f"g2-standard-8, {words}",
        machine_type="g2-standard-8",
        date=listed.date,
    )


@pytest.mark.parametrize(
    ("machine", "words"), [("a2-highgpu-1g", "flex-start or on demand"), ("a3-highgpu-1g", "flex-start")]
)
def test_a_machine_that_may_have_come_by_flex_start_is_not_called_on_demand(monkeypatch, machine, words):
    """The metadata server does not tell the two apart, so that each kind that the machine can be had by is named."""
    described = {
        "instance/machine-type": f"projects/1/machineTypes/{machine}",
        "instance/scheduling/preemptible": "FALSE",
    }
    with running_metadata_server(**described) as server:
        assert asked(monkeypatch, server).machine == f"{machine}, {words}"


def test_what_the_user_pays_comes_first(monkeypatch):
    """An amount in the environment replaces the list's, whose date then says nothing."""
    monkeypatch.setenv("JOB_USD_PER_HOUR", "0.2")
    assert price_here() == Price(usd_per_h=0.2)
    with running_metadata_server(**dict([G2]), **{"instance/scheduling/preemptible": "TRUE"}) as server:
        found = asked(monkeypatch, server)
    assert (found.usd_per_h, found.date, found.on_demand_usd_per_h) == (0.2, "", 0.85)
    monkeypatch.setenv("JOB_USD_PER_HOUR", "little")
    with pytest.raises(UsageError, match="must be an amount in dollars"):
        price_here()


def test_an_unknown_machine_has_no_price(monkeypatch):
    """Neither an own machine nor a type without prices has one."""
    assert price_here() == Price()
    unknown = {"instance/machine-type": "projects/1/machineTypes/z9-huge", "instance/scheduling/preemptible": "TRUE"}
    with running_metadata_server(**unknown) as server:
        found = asked(monkeypatch, server)
    assert (found.usd_per_h, found.machine) == (None, "z9-huge, Spot")


@pytest.mark.parametrize("amount", ["-1", "inf", "nan"])
def test_what_is_no_amount_is_refused(amount):
    """A price below 0 or without end would make every cost one."""
    with pytest.raises(UsageError, match="JOB_USD_PER_HOUR: must be an amount in dollars"):
        read_usd(amount, "JOB_USD_PER_HOUR")


def test_a_server_that_is_not_google_s_describes_no_machine(monkeypatch):
    """A captive portal answers anything with 200, and says nothing about this machine."""

    class Portal(Handler):
        def do_GET(self):
            self.respond(200, b"TRUE", {})

    with serving(Portal) as address:
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        assert price_here() == Price()
