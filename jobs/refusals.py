"""Whether the API refuses customers, or the campaign that they are in. No I/O."""

from __future__ import annotations

from rqmem.errors import ConfigError

ALIKE, FEWEST_ALIKE = 20, 3


class Refusals:
    """What one execution of a campaign's job has been told of its customers, one by one.

    Args:
        out_of: customers of the campaign; None: many.

    Attributes:
        alike: ids of those who were refused in a row, the last of them, all with the same words.
    """

    def __init__(self, out_of: int | None = None) -> None:
        self.alike: list[int] = []
        self._enough = ALIKE if out_of is None else min(ALIKE, max(FEWEST_ALIKE, out_of))
        self._words = ""
        self._any_accepted = False

    def accepted(self) -> None:
        """The API has taken a call, so what it refuses from now on are customers."""
        self._any_accepted = True

    def refused(self, customer_id: int, words: str) -> None:
        """The API refuses the call to that customer."""
        if words != self._words:
            self.alike, self._words = [], words
        self.alike.append(customer_id)

    @property
    def of_the_campaign(self) -> bool:
        """Whether it is the campaign that is refused: so many in a row, or all of a few, as none was taken before."""
        return not self._any_accepted and len(self.alike) >= self._enough

    def error(self, campaign_id: int) -> ConfigError:
        """What a person has to know then."""
        return ConfigError(
            f"Retell refuses all calls of campaign {campaign_id}, {len(self.alike)} in a row: {self._words}; "
            "mend its from_number, agent_id or customers, then run it again"
        )
