"""The table of KMMLU's 45 subjects: config name, supercategory, Korean name, file stem.

In: a name that a user typed. Out: its ``Subject``, or an error that suggests the nearest names.
Source of names and supercategories: the HAERAE-HUB/KMMLU dataset card. Knows nothing of questions or files.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError


def subject_order(names: set[str]) -> list[str]:
    """KMMLU's subjects in table order, then other exams' subjects by name."""
    return [name for name in SUBJECTS if name in names] + sorted(names - SUBJECTS.keys())


def group_order(names: set[str]) -> list[str]:
    """Supercategories in KMMLU's order, then other exams' groups by name."""
    return [name for name in SUPERCATEGORIES if name in names] + sorted(names - set(SUPERCATEGORIES))


SUPERCATEGORIES = ("STEM", "Applied Science", "HUMSS", "Other")
SUPERCATEGORY_KO = {"STEM": "이공계", "Applied Science": "응용과학", "HUMSS": "인문사회", "Other": "기타"}

# Two files of the hub dataset have lower-case stems although their config names are capitalised.
_LOWER_CASE_STEMS = {"Korean-History": "korean-history", "Math": "math"}


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject: ``name`` is the hub's config name, ``stem`` its file stem (``<stem>-test.csv``)."""

    name: str
    supercategory: str
    korean: str

    @property
    def stem(self) -> str:
        return _LOWER_CASE_STEMS.get(self.name, self.name)


_TABLE = """
Accounting|HUMSS|회계
Agricultural-Sciences|Other|농업과학
Aviation-Engineering-and-Maintenance|Applied Science|항공공학·정비
Biology|STEM|생물학
Chemical-Engineering|STEM|화학공학
Chemistry|STEM|화학
Civil-Engineering|STEM|토목공학
Computer-Science|STEM|컴퓨터과학
Construction|Other|건설
Criminal-Law|HUMSS|형법
Ecology|STEM|생태학
Economics|HUMSS|경제학
Education|HUMSS|교육학
Electrical-Engineering|STEM|전기공학
Electronics-Engineering|Applied Science|전자공학
Energy-Management|Applied Science|에너지관리
Environmental-Science|Applied Science|환경과학
Fashion|Other|패션
Food-Processing|Other|식품가공
Gas-Technology-and-Engineering|Applied Science|가스기술공학
Geomatics|Applied Science|공간정보학
Health|Other|보건
Industrial-Engineer|Applied Science|산업공학
Information-Technology|STEM|정보기술
Interior-Architecture-and-Design|Other|실내건축·디자인
Korean-History|HUMSS|한국사
Law|HUMSS|법학
Machine-Design-and-Manufacturing|Applied Science|기계설계·제조
Management|HUMSS|경영학
Maritime-Engineering|Applied Science|해양공학
Marketing|Other|마케팅
Materials-Engineering|STEM|재료공학
Math|STEM|수학
Mechanical-Engineering|STEM|기계공학
Nondestructive-Testing|Applied Science|비파괴검사
Patent|Other|특허
Political-Science-and-Sociology|HUMSS|정치·사회학
Psychology|HUMSS|심리학
Public-Safety|Other|공공안전
Railway-and-Automotive-Engineering|Applied Science|철도·자동차공학
Real-Estate|Other|부동산
Refrigerating-Machinery|Other|냉동기계
Social-Welfare|HUMSS|사회복지
Taxation|HUMSS|세무
Telecommunications-and-Wireless-Technology|Applied Science|통신·무선기술
"""

SUBJECTS: dict[str, Subject] = {
    name: Subject(name, supercategory, korean)
    for name, supercategory, korean in (line.split("|") for line in _TABLE.strip().splitlines())
}


def subject_key(name: str) -> str:
    """The name without differences of case, spaces and underscores."""
    return name.strip().lower().replace(" ", "-").replace("_", "-")


_BY_KEY = {
    subject_key(name): subject for subject in SUBJECTS.values() for name in (subject.name, subject.korean)
}


def find_subject(name: str) -> Subject:
    """The subject of that name, ignoring case, spaces and underscores. ConfigError suggests the nearest."""
    subject = _BY_KEY.get(subject_key(name))
    if subject is None:
        keys = difflib.get_close_matches(subject_key(name), _BY_KEY, n=3, cutoff=0.5)
        near = dict.fromkeys(_BY_KEY[key].name for key in keys)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"unknown subject {name!r}: allowed are KMMLU's 45 config names such as Accounting or"
            f" Korean-History, or their Korean names{hint}"
        )
    return subject


def find_subjects(names: list[str]) -> list[Subject]:
    """Subjects for names or supercategories (``STEM`` = its members), in table order, without repeats;
    [] = all 45."""
    if not names:
        return list(SUBJECTS.values())
    groups = {subject_key(group): group for group in SUPERCATEGORIES}
    wanted: set[str] = set()
    for name in names:
        group = groups.get(subject_key(name))
        if group:
            wanted |= {subject.name for subject in SUBJECTS.values() if subject.supercategory == group}
        else:
            wanted.add(find_subject(name).name)
    return [subject for subject in SUBJECTS.values() if subject.name in wanted]
