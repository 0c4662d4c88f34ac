"""Presidio's recognizers of national identifiers, by country.

They are made of patterns and check digits. Presidio binds each to its country's language; here a policy names
countries, whatever language a text is in.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COUNTRIES", "GENERIC_WORDS"]

_PACKAGES = {
    "au": ("australia", "AuAbn AuAcn AuMedicare AuTfn"),
    "ca": ("canada", "CaPostalCode CaSin"),
    "de": (
        "germany",
        """
        DeBsnr DeFuehrerschein DeHandelsregister DeHealthInsurance DeIdCard DeKfz DeLanr DePassport DePlz
        DeSocialSecurity DeTaxId DeTaxNumber DeVatId
        """,
    ),
    "es": ("spain", "EsNie EsNif EsPassport"),
    "fi": ("finland", "FiPersonalIdentityCode"),
    "in": ("india", "InAadhaar InGstin InPan InPassport InVehicleRegistration InVoter"),
    "it": ("italy", "ItDriverLicense ItFiscalCode ItIdentityCard ItPassport ItVatCode"),
    "kr": ("korea", "KrBrn KrDriverLicense KrFrn KrPassport KrRrn"),
    "ng": ("nigeria", "NgNin NgVehicleRegistration"),
    "ph": ("philippines", "PhPassport PhTin PhUmid"),
    "pl": ("poland", "PlPesel"),
    "se": ("sweden", "SeOrganisationsnummer SePersonnummer"),
    "sg": ("singapore", "SgFin SgUen"),
    "th": ("thai", "ThTnin"),
    "tr": ("turkey", "TrLicensePlate TrNationalId"),
    "uk": ("uk", "UkNhs UkDrivingLicence UkNino UkPassport UkPostcode UkVehicleRegistration"),
    "us": (
        "us",
        """
        AbaRouting MedicalLicense UsBank UsDriverLicense UsItin UsMbi UsNpi UsPassport UsSsn UsHealthInsuranceMemberId
        UsPriorAuthorizationNumber UsClaimNumber UsPrescriptionNumber UsReferralNumber UsProviderTaxId
        """,
    ),
    "za": (
        "south_africa",
        """
        ZaCompanyRegistration ZaDriverLicense ZaIdNumber ZaIncomeTaxNumber ZaLicensePlate ZaPassport
        ZaTrafficRegisterNumber ZaVatNumber
        """,
    ),
}
_MODULES = {  # where the module's name does not follow from the class's
    "ItVatCode": "it_vat_code",
    "UsPriorAuthorizationNumber": "us_healthcare_admin_recognizers",
    "UsClaimNumber": "us_healthcare_admin_recognizers",
    "UsPrescriptionNumber": "us_healthcare_admin_recognizers",
    "UsReferralNumber": "us_healthcare_admin_recognizers",
    "UsProviderTaxId": "us_healthcare_admin_recognizers",
}
_CLASSES = {"UkNhs": "NhsRecognizer", "UsDriverLicense": "UsLicenseRecognizer"}


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name).removeprefix("_")


def _recognizers(package: str, names: str) -> dict[str, str]:
    folder = f"predefined_recognizers.country_specific.{package}."
    return {
        _CLASSES.get(name, f"{name}Recognizer"): folder + _MODULES.get(name, f"{_snake(name)}_recognizer")
        for name in names.split()
    }


COUNTRIES: Mapping[str, Mapping[str, str]] = {
    country: _recognizers(package, names) for country, (package, names) in sorted(_PACKAGES.items())
}
"""For each country the recognizers' classes, and the modules of Presidio that they are in."""

GENERIC_WORDS = frozenset(
    {
        "number",
        "id",
        "identification",
        "identity",
        "card",
        "code",
        "document",
        "account",
        "check",
        "no",
        "nr",
        "registration",
    }
)
"""Context words of national identifiers that stand before other numbers just as often."""
