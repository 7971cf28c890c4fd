"""Whether the API refuses customers, or the campaign that they are in. No I/O."""

from __future__ import annotations

from rqmem.errors import ConfigError

ALIKE = 20


class Refusals:
    """What one execution of a campaign's job has been told of its customers, one by one.

    Attributes:
        alike: ids of those who were refused in a row, the last of them, all with the same words.
    """

    def __init__(self) -> None:
        self.alike: list[int] = []
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
        """Whether it is the campaign that is refused: so many in a row, as none was taken before."""
        return not self._any_accepted and len(self.alike) >= ALIKE

    def error(self, campaign_id: int) -> ConfigError:
        """What a person has to know then."""
        return ConfigError(
            f"Retell refuses all calls of campaign {campaign_id}, {len(self.alike)} in a row: {self._words}; "
            "mend its from_number or agent_id, then run it again"
        )
