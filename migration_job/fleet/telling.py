"""What a fleet's run has to say at its end: from the book into the report, the certificate, and the
last words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from migration_job import __version__
from migration_job.certification import is_whole
from migration_job.errors import (
    BlockedError,
    ExitStatus,
    InputError,
    JobError,
    OperationError,
    VerificationError,
)
from migration_job.fleet.places import FILES, folder_name
from migration_job.plural import counted, either
from migration_job.report import fleet as page
from migration_job.report.context import now
from migration_job.report.fleet import FleetCertificate, FleetFile, FleetPlan, FleetReport
from migration_job.report.model import Certificate, sealed
from migration_job.stores.postgres.fleet_ledger import FileRow, FleetLedger

SHOWN = 10
"""Files that are named in the last words; the report has all."""

PLANS = "plans"

KIND: Mapping[int, type[JobError]] = {
    ExitStatus.UNEXPECTED: OperationError,
    ExitStatus.USAGE: InputError,
    ExitStatus.BLOCKED: BlockedError,
    ExitStatus.VERIFICATION_FAILED: VerificationError,
}


def policy_name(number: int) -> str:
    """The file of a plan's policy, in the report's directory of plans."""
    return f"{number}.policy.yaml"


def tell(
    report: FleetReport,
    ledger: FleetLedger,
    folder: Path,
    listed: Collection[str],
    earlier: Collection[str],
) -> dict[str, Certificate]:
    """Put what the book says into the report; the certificates of the verified files. ``listed``
    are the manifest's tenants, ``earlier`` those whose certificate is an earlier run's. Raises
    VerificationError where a certificate in the book is not as it was issued."""
    bodies = ledger.bodies()
    certificates: dict[str, Certificate] = {}
    for tenant, row in ledger.files().items():
        own = f"{FILES}/{folder_name(tenant)}"
        told = FleetFile(
            path=row.path,
            place=row.place,
            bytes=row.bytes,
            state=row.state,
            earlier=tenant in earlier,
            listed=tenant in listed,
            plan=row.plan,
            exit_status=row.status,
            message=row.message,
            report=own if (folder / own / "report.html").exists() else "",
        )
        if row.state == "verified":
            certificates[tenant] = _tell_certificate(told, row, bodies.get(tenant, ""))
        report.files[tenant] = told
    report.plans = {
        plan.number: FleetPlan(
            common=plan.common,
            reason=plan.reason,
            files=sum(f.plan == plan.number for f in report.files.values()),
            policy=f"{PLANS}/{policy_name(plan.number)}",
        )
        for plan in ledger.all_plans()
    }
    return certificates


def _tell_certificate(told: FleetFile, row: FileRow, body: str) -> Certificate:
    try:
        certificate = Certificate.model_validate_json(body)
    except ValueError:
        certificate = None
    if certificate is None or not is_whole(certificate) or certificate.digest != row.certificate:
        raise VerificationError(
            f"expected the certificate of {row.tenant} as it was issued, found another text in the "
            "fleet's book",
            advice="somebody has written to schema _migration_fleet; nothing in it is to be "
            "believed",
        )
    told.certificate = certificate.digest
    told.rows = sum(table.rows for table in certificate.tables.values())
    told.ledger_count = certificate.ledger_count
    told.quarantine_count = certificate.quarantine_count
    told.exceptions = list(row.exceptions)
    return certificate


def certify(
    report: FleetReport, ledger: FleetLedger, certificates: Mapping[str, Certificate]
) -> None:
    """Issue the fleet's certificate, where every file of the manifest has one."""
    listed = {tenant: file for tenant, file in report.files.items() if file.listed}
    if any(file.state != "verified" for file in listed.values()):
        return
    own = {tenant: certificates[tenant] for tenant in listed}
    unsealed = FleetCertificate(
        fleet_id=report.fleet_id,
        job_version=__version__,
        layout=report.layout,
        files={tenant: file.certificate for tenant, file in sorted(listed.items())},
        rows=sum(file.rows for file in listed.values()),
        quarantine_count=sum(file.quarantine_count for file in listed.values()),
        ledger_count=sum(file.ledger_count for file in listed.values()),
        exceptions={
            tenant: file.exceptions for tenant, file in sorted(listed.items()) if file.exceptions
        },
        partial=_partial(own),
        durable=all(c.durable for c in own.values()),
        # The last file's, so that one sum has one digest however often it is added up.
        issued_at=max((c.issued_at for c in own.values()), default=now()),
    )
    certificate = sealed(unsealed)
    ledger.certify(certificate.digest, certificate.model_dump_json())
    report.certificate = certificate


def _partial(certificates: dict[str, Certificate]) -> dict[str, str]:
    """What each file's certificate says of what stays on SQLite, where it does."""
    said = {tenant: body.checks.get("partial", "") for tenant, body in certificates.items()}
    return {tenant: words for tenant, words in said.items() if words}


def judge(report: FleetReport, folder: Path) -> None:
    """The last words. Raises a JobError where a file of the manifest is not verified."""
    listed = {tenant: file for tenant, file in report.files.items() if file.listed}
    left = {tenant: file for tenant, file in listed.items() if file.state != "verified"}
    earlier = sum(file.earlier for file in listed.values())
    before = f", {earlier:,} of them as certified by the earlier run" if earlier else ""
    before += _with_exceptions(listed)
    if not left:
        report.outcome = "verified"
        rows = sum(file.rows for file in listed.values())
        report.message = (
            f"{counted(len(listed), 'file')} with {counted(rows, 'row')} "
            f"{either(len(listed), 'is', 'are')} on the target and verified{before}"
        )
        return
    first = "; ".join(
        f"{tenant}: {(file.message or file.state).splitlines()[0]}"
        for tenant, file in sorted(left.items())[:SHOWN]
    )
    more = f"; and {len(left) - SHOWN:,} more" if len(left) > SHOWN else ""
    on_target = len(listed) - len(left)
    raise KIND[common_status({file.exit_status for file in left.values()})](
        f"{len(left):,} of {counted(len(listed), 'file')} {either(len(left), 'is', 'are')} not "
        f"verified on the target, {either(on_target, '1 is', f'{on_target:,} are')}"
        f"{before}: {first}{more}",
        advice=f"{folder / page.PAGE} has a line for each and leads to its own report; the files "
        "are untouched. Run the same command again once what stops them is resolved: it takes "
        "those that are left",
    )


def _with_exceptions(listed: Mapping[str, FleetFile]) -> str:
    """As :func:`migration_job.report.exceptions.with_exceptions`, of several files."""
    found = {
        tenant: ", ".join(file.exceptions)
        for tenant, file in sorted(listed.items())
        if file.state == "verified" and file.exceptions
    }
    if not found:
        return ""
    named = [f"{tenant}: {said}" for tenant, said in found.items()]
    more = f"; and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
    return f", with exceptions in {counted(len(found), 'file')} ({'; '.join(named[:SHOWN])}{more})"


def common_status(found: Collection[int]) -> ExitStatus:
    """A difference is told before everything else; else the one that all have."""
    if ExitStatus.VERIFICATION_FAILED in found:
        return ExitStatus.VERIFICATION_FAILED
    only = next(iter(found)) if len(found) == 1 else int(ExitStatus.UNEXPECTED)
    return ExitStatus(only) if only in KIND else ExitStatus.UNEXPECTED
