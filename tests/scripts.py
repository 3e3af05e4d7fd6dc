"""Sentences of every script that a report must be able to show, for the tests of the formats."""

from __future__ import annotations

SENTENCES = {
    "latin": "Ce cookie enregistre vos préférences, straße, Łódź, İzmir, đồng",
    "greek": "Αυτό το cookie αποθηκεύει τις προτιμήσεις",
    "cyrillic": "Этот файл cookie хранит настройки",
    "hebrew": "קובץ עוגיה השומר את העדפות המשתמש",
    "arabic": "ملف تعريف الارتباط يحفظ تفضيلات المستخدم",
    "urdu": "یہ کوکی صارف کی ترجیحات محفوظ کرتی ہے",
    "devanagari": "यह कुकी उपयोगकर्ता की प्राथमिकताएँ संग्रहीत करती है क्षत्रिय",
    "bengali": "এই কুকি ব্যবহারকারীর পছন্দ সংরক্ষণ করে",
    "gurmukhi": "ਇਹ ਕੂਕੀ ਉਪਭੋਗਤਾ ਦੀਆਂ ਤਰਜੀਹਾਂ",
    "gujarati": "આ કૂકી વપરાશકર્તાની પસંદગીઓ",
    "tamil": "இந்த குக்கீ பயனர் விருப்பங்களைச் சேமிக்கிறது",
    "telugu": "ఈ కుకీ వినియోగదారు ప్రాధాన్యతలను",
    "kannada": "ಈ ಕುಕೀ ಬಳಕೆದಾರರ ಆದ್ಯತೆಗಳನ್ನು",
    "malayalam": "ഈ കുക്കി ഉപയോക്തൃ മുൻഗണനകൾ",
    "sinhala": "මෙම කුකිය පරිශීලක මනාප",
    "thai": "คุกกี้นี้เก็บการตั้งค่าของผู้ใช้เป็นเวลา",
    "khmer": "ខូគីនេះរក្សាទុកចំណូលចិត្ត",
    "myanmar": "ဤကွတ်ကီးသည် အသုံးပြုသူ",
    "georgian": "ეს ქუქი ინახავს პარამეტრებს",
    "armenian": "Այս թխուկը պահպանում է",
    "ethiopic": "ይህ ኩኪ የተጠቃሚ ምርጫዎችን",
    "chinese": "此 Cookie 用于存储用户的首选项。我们不会与第三方共享这些数据。",
    "japanese": "このクッキーはユーザーの設定を保存します。有効期限は30日間です。",
    "korean": "이 쿠키는 사용자의 환경설정을 저장합니다.",
    "emoji": "🍪 cookie 😀🚀",
    "combining": "e\u0301\u0302 l\u0308 cafe\u0301",
}

POINTED = {
    "pointed hebrew": "שָׁלוֹם עוֹלָם",
    "vocalised arabic": "مُحَمَّدٌ يَوْمًا",
}
"""Readers of a PDF put the points beside the letters, each in its own way."""
