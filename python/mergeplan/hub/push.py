"""Push a merge: everything that may forbid it is asked before the merge, and the files go after it,
verified, in one commit."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mergeplan._native import __version__
from mergeplan.display.text import cut, listed
from mergeplan.errors import InputError, MergeplanError, SurroundingsError
from mergeplan.hub.client import open_hub, status_of, telling
from mergeplan.hub.files import Files, check_planned, files_of
from mergeplan.inspection.verify import verify
from mergeplan.merging.card import Card
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import NAME as MANIFEST
from mergeplan.merging.manifest import Manifest, load_manifest
from mergeplan.merging.replacing import CARD
from mergeplan.system.files import sha256_of
from mergeplan.system.progress import Progress

# What the hub puts into a repository that is new.
_NEW = {".gitattributes"}
_AGAIN = "the command above tries again; what the hub has by now is not sent twice"


@dataclass(frozen=True)
class Prepared:
    """A push that nothing forbids.

    Attributes:
        url: Of the repository.
        card: The merge's model card.
        head: The repository's last commit; `None` where there is no repository.
        there: The manifest of this very merge that the repository holds; `None` where it is empty.
    """

    url: str
    private: bool
    merge: CheckedMerge
    card: Card
    head: str | None
    there: Manifest | None

    @property
    def found(self) -> str:
        """What is there: `nothing`, or a repository that is `empty` or holds `this merge`."""
        if self.head is None:
            return "nothing"
        return "empty" if self.there is None else "this merge"

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return {"url": self.url, "private": self.private, "found": self.found}

    def line(self) -> str:
        """In words: what would be done."""
        would = {
            "nothing": "not there yet, would be made",
            "empty": "there and empty, would be filled",
            "this merge": "holds this merge, gets card, config and manifest where they differ",
        }
        return f"{self.url}: {_seen(self.private)}, {would[self.found]}; nothing forbids the push"


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now."""

    repository: str
    url: str
    commit: str
    private: bool

    def line(self) -> str:
        """In words."""
        return f"{self.url}: pushed, {_seen(self.private)}, commit {self.commit[:10]}"


def _seen(private: bool) -> str:
    return "private" if private else "public"


class Push:
    """Pushes of merges into one repository.

    Args:
        repository: `ORG/NAME`.
        public: Whether all may see it.
        licence: That of the merge; `None` for the one in which the models' cards agree.
        quiet: Show no progress.

    Raises:
        MissingInputError, SurroundingsError: There is no client of the hub, or no token.
    """

    def __init__(
        self, repository: str, *, public: bool = False, licence: str | None = None, quiet: bool
    ) -> None:
        self._repository, self._public, self._licence = repository, public, licence
        self._hub = open_hub(quiet=quiet)
        self._url = f"{self._hub.endpoint}/{repository}"

    def prepare(self, merge: CheckedMerge, *, create: bool = True) -> Prepared:
        """Ask everything that may forbid it, and make the repository.

        Args:
            merge: What is to be pushed.
            create: Whether a repository that is not there is made.

        Returns:
            What the other methods take, and what was found.

        Raises:
            InputError: A licence forbids it, or none is set; or a path of this machine would go up.
            SurroundingsError: The hub refuses, or the repository has something else.
        """
        card = Card(merge.config, merge.plan, self._licence)
        card.licences.check()
        check_planned(merge, card, self._title)
        with telling("ask the hub who you are"):
            token = (self._hub.whoami().get("auth") or {}).get("accessToken") or {}
            if token.get("role") == "read":
                raise SurroundingsError(
                    "the token for the hub may only read",
                    "use one that may write; huggingface.co/settings/tokens",
                )
        info = self._info()
        there = None if info is None else self._check_there(info, merge)
        self._check_card(card)
        if info is None and create:
            with telling(f"make the repository `{self._repository}`"):
                self._hub.create_repo(self._repository, private=not self._public)
            info = self._info()
        head = None if info is None else info.sha
        return Prepared(self._url, not self._public, merge, card, head, there)

    @property
    def _title(self) -> str:
        return self._repository.rpartition("/")[2]

    def _check_card(self, card: Card) -> None:
        """Have the hub look at the card's head, as it does before a commit.

        Raises:
            InputError: It refuses it: a licence, say, that it does not know.
        """
        from huggingface_hub.utils import get_session

        with telling("have the model card checked by the hub"):
            # `ModelCard.validate` of older clients asks huggingface.co, wherever HF_ENDPOINT leads.
            response = get_session().post(
                f"{self._hub.endpoint}/api/validate-yaml",
                json={"content": card.text(self._title), "repoType": "model"},
            )
            if response.status_code == 400:
                told = response.json().get("errors") or [{}]
                faults = [str(fault.get("message")) for fault in told]
                raise InputError(
                    f"the hub refuses the model card: {cut('; '.join(faults), 300)}",
                    "`--license ID` takes words of huggingface.co/docs/hub/repositories-licenses",
                )

    def _info(self) -> Any:
        """What the hub says of the repository; `None` where it has none."""
        with telling(f"look at the repository `{self._repository}`"):
            try:
                return self._hub.model_info(self._repository)
            except Exception as error:
                # The hub says 401 of one that a valid token cannot see.
                if status_of(error) in (401, 404):
                    return None
                raise

    def _check_there(self, info: Any, merge: CheckedMerge) -> Manifest | None:
        """Refuse a repository that has something else, is seen by others, or is not ours.

        Returns:
            The manifest that was pushed there, if it is of this merge.
        """
        name = f"repository `{self._repository}`"
        # An older client cannot ask.
        if "write" in inspect.signature(self._hub.auth_check).parameters:
            with telling(f"write to the {name}"):
                self._hub.auth_check(self._repository, write=True)
        if bool(info.private) is self._public:
            found, hint = (
                ("private", "leave `--public` out, or make it public in its settings")
                if info.private
                else ("public", "pass `--public`, or choose another name")
            )
            raise SurroundingsError(f"{name} is there already, and is {found}", hint)
        names = {file.rfilename for file in info.siblings or ()} - _NEW
        there = self._manifest_of(info, names, merge)
        if names and there is None:
            raise SurroundingsError(
                f"{name} holds something else ({listed(sorted(names), 3)}), which is not replaced",
                "choose another name; `hf upload` replaces what you name",
            )
        return there

    def _manifest_of(self, info: Any, names: set[str], merge: CheckedMerge) -> Manifest | None:
        """The manifest that was pushed there, if it is of this merge, and the card is as it was."""
        if not {MANIFEST, CARD} <= names:
            return None
        with TemporaryDirectory() as folder:
            with telling(f"read what the repository `{self._repository}` holds"):
                for name in (MANIFEST, CARD):
                    self._hub.hf_hub_download(
                        self._repository, name, revision=info.sha, local_dir=folder
                    )
            try:
                manifest = load_manifest(Path(folder))
            except MergeplanError:
                return None
            card = sha256_of(Path(folder, CARD))
        if manifest.plan_sha256 != merge.plan.data.sha256():
            return None
        if card != manifest.companions.get(CARD):
            raise SurroundingsError(
                f"`{CARD}` in the repository `{self._repository}` was changed there, and is not"
                " replaced",
                "choose another name; `hf upload` replaces what you name",
            )
        return manifest

    def verified(
        self, prepared: Prepared, threads: int | None = None, progress: Progress | None = None
    ) -> Files:
        """Check that the merge is what its manifest says, and may become what is there.

        Args:
            prepared: Of a merge that has run.
            threads: That hash; `None` for one a usable core.
            progress: Called with bytes done and bytes in all.

        Returns:
            The files that go up.

        Raises:
            InputError: It is not, or a path of this machine would go up.
            SurroundingsError: The repository holds what other inputs gave.
        """
        out, there = prepared.merge.out, prepared.there
        checked = verify(out, threads=threads, progress=progress)
        if not checked.matches:
            raise InputError(
                f"`{out}` is not what was merged, and is not pushed: {checked.differences[0]}",
                f"`hf upload {self._repository} {out}` publishes a folder as it is",
            )
        manifest = load_manifest(out)
        if there and (there.tensors, there.files) != (manifest.tensors, manifest.files):
            raise SurroundingsError(
                f"repository `{self._repository}` holds what this config made of other"
                " inputs, which is not replaced",
                "choose another name",
            )
        return files_of(prepared.merge, prepared.card, self._title, manifest)

    def send(self, prepared: Prepared, files: Files) -> Pushed:
        """Push a merge in one commit.

        Args:
            prepared: Whose repository nobody changed since.
            files: What `verified` returned for it.

        Returns:
            What is there now.

        Raises:
            SurroundingsError: The hub refuses, or cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd

        with telling(f"push `{prepared.merge.out}` to `{self._repository}`", _AGAIN):
            done = self._hub.create_commit(
                self._repository,
                [CommitOperationAdd(name, file) for name, file in sorted(files.items())],
                commit_message=f"Merge by mergeplan {__version__}",
                # Nothing that came there meanwhile is replaced.
                parent_commit=prepared.head,
            )
        return Pushed(self._repository, self._url, done.oid, prepared.private)
